"""Before a run: a warning where memory is short, an error where the disk is."""

import logging

import pytest

from tests.run.planning.test_plan import recipe_file  # noqa: F401
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.run.planning import fitting
from wagle.run.planning.fitting import refuse_small_disk, short_of
from wagle.run.planning.formulas import Need
from wagle.run.planning.machine import Machine
from wagle.run.planning.stages import Way
from wagle.system.errors import DiskFull

GB = 10**9
NEEDS = {"before": Need({"a": 2.0 * GB}), "unlearn": Need({"a": 20.0 * GB, "libraries": 1.0 * GB})}
WAYS = [
    Way("whole", 0.001, Need({"a": 15.0 * GB})),
    Way("stream", 0.05, Need({"a": 3.0 * GB})),
    Way("stream", 0.8, Need({"a": 6.0 * GB})),
    Way("lora", None, Need({"a": 14.0 * GB})),
    Way("qlora", None, Need({"a": 4.0 * GB})),
]


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (21, None),
        (17.9, None),  # predicted 21: within what a prediction may be wrong by
        (16, "; attribution.ratio=0.001 needs 15.0 GB"),
        (8, "; unlearning.engine=stream with attribution.ratio=0.8 needs 6.0 GB"),
        (5, "; unlearning.engine=stream with attribution.ratio=0.05 needs 3.0 GB"),
        (1, ", and no other way fits: see wagle plan"),
    ],
)
def test_the_warning_names_a_way_that_fits(free, said):
    found = short_of(NEEDS, free * GB, WAYS, card=False)
    wanted = f"the stage unlearn needs about 21.0 GB of memory, but only {free:.1f} GB are free"
    assert found == (None if said is None else wanted + said)


def test_other_stages_and_cards_have_their_own_words():
    assert short_of({"before": NEEDS["before"]}, GB, WAYS, card=False) == (
        "the stage before needs about 2.0 GB of memory, but only 1.0 GB are free; a smaller batch "
        "needs less: see wagle plan"
    )
    on_card = short_of(NEEDS, 8 * GB, [], card=True)
    assert on_card.startswith("the stage unlearn needs about 20.6 GB of GPU memory")
    assert short_of({}, 0, WAYS, card=False) is None


def test_a_disk_too_small_is_refused_with_what_is_missing(tmp_path):
    needs = {"unlearn": Need({}, {"model": 5e9, "vectors": 2e9, "checkpoint": 9e9})}
    with pytest.raises(DiskFull, match=r"needs about 7\.0 GB .* 6\.5 GB are free: 0\.5 GB are mis"):
        refuse_small_disk(needs, Machine(0, 0, 6_500_000_000, {}), tmp_path)
    refuse_small_disk(needs, Machine(0, 0, 7_000_000_000, {}), tmp_path)


def test_what_an_interrupted_stage_left_is_not_asked_for_again(tmp_path):
    (tmp_path / "private").mkdir()
    with (tmp_path / "private" / "half").open("wb") as file:
        file.truncate(600_000_000)
    needs = {"gradients": Need({}, {"gradients": 7e9})}
    refuse_small_disk(needs, Machine(0, 0, 6_500_000_000, {}), tmp_path)


def test_a_run_says_what_does_not_fit_before_any_work(
    recipe_file,  # noqa: F811
    tmp_path,
    monkeypatch,
    caplog,
):
    monkeypatch.setattr(fitting, "this_machine", lambda *_, **__: Machine(100, 100, GB, {}))
    with caplog.at_level(logging.WARNING):
        run = execute(load_recipe(recipe_file), tmp_path / "run", until="teach")
    said = [r.getMessage() for r in caplog.records if "of memory, but only" in r.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("the stage teach needs about 0.6 GB")
    assert any("of memory, but only" in line.get("warning", "") for line in run.logged())


def test_a_run_that_the_disk_cannot_hold_leaves_nothing(
    recipe_file,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr(fitting, "this_machine", lambda *_, **__: Machine(GB, 9 * GB, 1000, {}))
    with pytest.raises(DiskFull, match="GB are missing; free some space"):
        execute(load_recipe(recipe_file), tmp_path / "run")
    assert not (tmp_path / "run").exists()

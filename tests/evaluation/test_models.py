"""Which model a name stands for, and what is known of it before one is asked."""

from __future__ import annotations

import pytest
from torch import nn

from wagle.evaluation import models
from wagle.evaluation.comparable import data_entry
from wagle.evaluation.figures import Figure, Measured, Task
from wagle.evaluation.models import Way, find_model, known_result, patch_names
from wagle.evaluation.result import Evaluation
from wagle.system.errors import WagleError

WAY = Way(encoder=None)  # type: ignore[arg-type]


def task(count=2, fits=None):
    """A benchmark of some records of the forget set, in private texts."""
    records = {"forget": {f"forget[{i}]": f"text {i}" for i in range(count)}}
    return Task([], lambda _: Measured({}), records=records, settings={"rows": 1}, fits=fits)


def result(made, **details):
    figures = {"forget": {"know": Figure(0.5, None, "none")}}
    return Evaluation(figures, details={"benchmark": "mine", "data": data_entry(made), **details})


@pytest.mark.parametrize("made", [True, False])
def test_of_a_run_the_unlearned_model_is_meant_or_the_taught_one_before(tmp_path, made):
    (tmp_path / "recipe.yaml").touch()
    for name in ("base", "model") if made else ("base",):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    assert find_model(tmp_path) == tmp_path / ("model" if made else "base")


def test_another_folder_is_the_model_itself(tmp_path):
    (tmp_path / "config.json").touch()
    (tmp_path / "model").mkdir()
    assert find_model(str(tmp_path)) == tmp_path


def test_what_is_no_model_is_refused_by_its_name(tmp_path):
    with pytest.raises(WagleError, match="nowhere"):
        find_model(tmp_path / "nowhere")


def test_patches_have_their_names_without_their_folders(tmp_path):
    assert patch_names("runs/x/patch.safetensors") == ["patch.safetensors"]
    assert patch_names([tmp_path / "b", "c/a"]) == ["b", "a"]


def test_a_live_model_and_a_folder_are_no_results(tmp_path):
    (tmp_path / "config.json").touch()
    for named in (nn.Linear(1, 1), tmp_path, str(tmp_path)):
        assert known_result("reference", named, task(), "mine", WAY) is None  # type: ignore[arg-type]


def test_a_folder_that_is_none_is_found_out_before_any_model_is_asked(tmp_path):
    with pytest.raises(WagleError, match="nowhere"):
        known_result("before", tmp_path / "nowhere", task(), "mine", WAY)


def test_a_result_in_memory_says_which_model_it_is_of():
    own = task()
    given = result(own, model={"path": "model", "fingerprint": "f"})
    known = known_result("reference", given, own, "mine", WAY)
    assert known == (given, {"kind": "result", "path": "model", "fingerprint": "f"})


def test_a_result_of_other_records_is_refused_in_the_words_of_its_role():
    for role, called in (("before", "the model before"), ("reference", "the reference")):
        with pytest.raises(WagleError, match=f"{called} has other records: 3 in the set forget"):
            known_result(role, result(task(3)), task(), "mine", WAY)


def test_the_benchmark_is_asked_whether_the_figures_fit():
    seen = []

    def fits(found, role):
        seen.append((sorted(found.figures), role))
        raise WagleError("they do not")

    with pytest.raises(WagleError, match="they do not"):
        known_result("before", result(task()), task(fits=fits), "mine", WAY)
    assert seen == [(["forget"], "before")]


def test_a_result_file_of_a_run_is_read_with_the_salt_of_that_run(tmp_path, monkeypatch, caplog):
    """Its digests then compare, so that other texts of the same number are found out."""
    answers = tmp_path / "private/answers"
    answers.mkdir(parents=True)
    (tmp_path / "evaluation").mkdir()
    file = tmp_path / "evaluation/before.json"
    file.touch()
    own, other = task(), task()
    other = Task(
        [],
        lambda _: Measured({}),
        records={"forget": {"forget[0]": "text 0", "forget[1]": "another"}},
        settings={"rows": 1},
    )
    for made, refused in ((own, False), (other, True)):
        kept = Evaluation({}, details={"benchmark": "mine", "data": data_entry(made, answers)})
        monkeypatch.setattr(models, "read_result", lambda *_, kept=kept, **__: kept)
        if refused:
            with pytest.raises(WagleError, match="have other texts or another order"):
                known_result("reference", file, own, "mine", WAY)
        else:
            known = known_result("reference", file, own, "mine", WAY)
            assert known == (kept, {"kind": "result", "path": str(file)})
    assert caplog.records == []


def test_a_result_file_of_nowhere_warns_that_its_records_cannot_be_told(
    tmp_path, monkeypatch, caplog
):
    file, own = tmp_path / "result.json", task()
    file.touch()
    kept = result(own)
    data = {**kept.details["data"], "salt": "another"}
    kept = Evaluation({}, details={"benchmark": "mine", "data": data})
    monkeypatch.setattr(models, "read_result", lambda *_, **__: kept)
    known_result("reference", str(file), own, "mine", WAY)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "cannot tell whether the reference was asked about the same"
    )

"""A file of a run that was edited is noticed wherever the run is read."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.cli import app as cli
from wagle.recipe.reading import load_recipe
from wagle.run import folder as folder_module
from wagle.run.execution import execute
from wagle.run.finding import find_run
from wagle.run.folder import RunFolder
from wagle.run.integrity.seals import (
    check_needed,
    check_run,
    check_sealed_file,
    check_seals,
    inspect_run,
)
from wagle.run.opening import Run
from wagle.run.single import measure_model
from wagle.run.stages.table import STAGES
from wagle.system.errors import WagleError
from wagle.system.files import seals as digests
from wagle.system.files.seals import stamp


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of one step, with an attack."""
    home = tmp_path_factory.mktemp("home")
    make_model("llama-tied").save_pretrained(home / "tiny")
    make_tokenizer().save_pretrained(home / "tiny")
    (home / "forget.json").write_text(json.dumps(RECORDS[:3]))
    (home / "retain.json").write_text(json.dumps(OTHERS[:3]))
    recipe = {
        "name": "tiny",
        "model": str(home / "tiny"),
        "reference": "untaught",
        "forget": str(home / "forget.json"),
        "retain": str(home / "retain.json"),
        "finetune": {"max_steps": 2, "learning_rate": 5e-3},
        "attribution": {"ratio": 0.5},
        "unlearning": {"max_steps": 1, "learning_rate": 1e-3},
        "evaluation": {"generate": False},
        "patch": {"undo": True},
        "attacks": [{"name": "quantization", "settings": {"methods": ["int8"]}}],
    }
    return execute(load_recipe(recipe), home / "run")


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of it that a test may spoil."""
    return shutil.copytree(finished.folder, tmp_path / "run")


def edit(path):
    """Another byte in the middle of a file of the same length."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def rot(path):
    """Another byte that shows in neither size nor time, as a disk would have it."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(before.st_size - 8)
        byte = file.read(1)[0]
        file.seek(before.st_size - 8)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def doctor(path):
    """What somebody would write who wants another verdict."""
    found = json.loads(path.read_text())
    found["metrics"]["forget.probability"]["value"] = 0.01
    path.write_text(json.dumps(found))


def quick(folder):
    return execute(*find_run(str(folder), [], None))


def test_a_finished_run_is_as_its_stages_wrote_it_and_so_is_a_copy(finished, folder):
    for place in (finished.folder, folder):
        assert check_run(place) == []
        assert quick(place).folder == place
    assert set(finished.seals) == {name for name, stage in STAGES.items() if stage.writes}
    sealed = {name for made in finished.seals.values() for name in made.files}
    assert {
        "base/model.safetensors",
        "base/tokenizer.json",
        "evaluation/reference.json",
        "evaluation/before.json",
        "evaluation/after.json",
        "evaluation.json",
        "private/gradients/store.json",
        "private/undo.safetensors",
        "private/answers-after.json",
        "mask.safetensors",
        "model/model.safetensors",
        "patch.safetensors",
        "attacks/quantization.json",
        "ledger.json",
        "report.html",
    } <= sealed


READERS = {
    "run": lambda folder: quick(folder),
    "report": lambda folder: cli.app(["report", str(folder)], standalone_mode=False),
    "ledger": lambda folder: cli.app(["ledger", str(folder)], standalone_mode=False),
    "evaluate": lambda folder: cli.app(["evaluate", str(folder)], standalone_mode=False),
    "before": lambda folder: measure_model(
        str(folder / "base"), ["forget=demo:forget"], benchmark="qa", before=str(folder)
    ),
    "reference": lambda folder: measure_model(
        str(folder / "base"),
        ["forget=demo:forget"],
        benchmark="qa",
        reference=str(folder / "evaluation" / "after.json"),
    ),
    "library": lambda folder: RunFolder(folder).evaluation("after"),
}


@pytest.mark.parametrize("reader", READERS)
def test_an_edited_evaluation_is_refused_by_whatever_reads_it(folder, reader):
    path = folder / "evaluation" / "after.json"
    doctor(path)
    with pytest.raises(WagleError, match=f"^{path} was edited since the stage after wrote") as told:
        READERS[reader](folder)
    assert "\n" not in str(told.value)
    if reader != "library":
        assert str(told.value).endswith(f"make it again: wagle run {folder} --again after")


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("base/model.safetensors", "teach"),
        ("base/config.json", "teach"),
        ("evaluation/reference.json", "reference"),
        ("private/gradients/store.json", "gradients"),
        ("mask.safetensors", "mask"),
        ("model/model.safetensors", "unlearn"),
        ("patch.safetensors", "patch"),
        ("evaluation.json", "after"),
        ("attacks/quantization.json", "attacks"),
        ("ledger.json", "ledger"),
        ("report.html", "report"),
    ],
)
def test_every_file_of_a_stage_is_checked(folder, name, stage):
    edit(folder / name)
    assert check_run(folder) == [f"{name} was edited (made by {stage})"]
    with pytest.raises(WagleError, match=f"{name} was edited since the stage {stage} wrote it"):
        check_seals(folder)


@pytest.mark.parametrize(
    ("name", "stage"), [("patch.safetensors", "patch"), ("model/model.safetensors", "unlearn")]
)
def test_a_file_that_was_cut_or_deleted_is_refused(folder, name, stage):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WagleError, match=f"{name} was edited since the stage {stage} wrote it"):
        quick(folder)
    path.unlink()
    with pytest.raises(WagleError, match=f"{name} is missing since the stage {stage} wrote it"):
        quick(folder)


def test_an_edited_state_is_refused_as_it_says_the_verdict(folder):
    path = folder / "state.json"
    path.write_text(path.read_text().replace('"verdict": "', '"verdict": "no ', 1))
    for read in (quick, check_run):
        with pytest.raises(WagleError, match=r"state.json was edited since wagle wrote it"):
            read(folder)


def test_a_stage_is_made_again_with_those_after_it(folder):
    for name in ("evaluation/after.json", "attacks/quantization.json"):
        edit(folder / name)
    recipe, place = find_run(str(folder), [], None)
    was = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    run = execute(recipe, place, again="after")
    assert list(run.state["stages"]) == list(STAGES)
    assert check_run(folder) == []
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == was
    with pytest.raises(WagleError, match="unknown stage 'aftre'; did you mean 'after'"):
        execute(recipe, place, again="aftre")


def test_weights_are_known_by_their_stamp_at_a_quick_look_and_hashed_by_a_thorough_one(folder):
    path = folder / "model" / "model.safetensors"
    run = RunFolder(folder)
    run.state["seals"]["unlearn"]["stamps"]["model/model.safetensors"] = stamp(path)
    run.save_state()
    times = path.stat()
    edit(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    check_seals(folder)
    assert check_run(folder) == ["model/model.safetensors was edited (made by unlearn)"]


def test_a_run_of_an_older_wagle_opens_but_nothing_vouches_for_it(folder):
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({"stages": state["stages"]}))
    doctor(folder / "evaluation" / "after.json")
    assert quick(folder).evaluation("after") is not None
    assert check_run(folder) == [
        f"the stage {name} is not sealed: an older wagle made it" for name in STAGES
    ]


def test_models_that_were_deleted_are_findings_and_no_hindrance(folder):
    shutil.rmtree(folder / "base")
    assert quick(folder)
    found = check_run(folder)
    assert "base/model.safetensors is missing (made by teach)" in found
    assert all(line.startswith("base/") for line in found)


def test_a_missing_evaluation_is_refused(folder):
    (folder / "evaluation" / "reference.json").unlink()
    with pytest.raises(WagleError, match=r"reference.json is missing since the stage reference"):
        quick(folder)


def test_private_files_may_go(folder):
    shutil.rmtree(folder / "private")
    assert quick(folder)
    found = inspect_run(folder)
    assert found.findings == ()
    assert found.gone > 3


def test_what_was_deleted_on_purpose_may_be_missing_but_not_edited(folder):
    run = RunFolder(folder)
    shutil.rmtree(folder / "base")
    (folder / "evaluation" / "reference.json").unlink()
    run.enter_deleted(["base/", "evaluation/reference.json", "report.html"])
    assert quick(folder)
    assert check_run(folder) == []
    edit(folder / "report.html")
    assert check_run(folder) == ["report.html was edited (made by report)"]


def test_an_evaluation_or_an_attack_that_no_stage_wrote_is_found(folder):
    shutil.copy(folder / "evaluation" / "after.json", folder / "evaluation" / "after-tofu.json")
    (folder / "attacks" / "none.json").write_text("{}")
    (folder / "model" / "README.md").write_text("a card")  # that is no result
    assert check_run(folder) == [
        "evaluation/after-tofu.json was added: no stage wrote it",
        "attacks/none.json was added: no stage wrote it",
    ]


def test_an_edited_recipe_is_found_but_paths_in_it_may_be_mended(folder):
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("name: tiny", "name: tinier"))
    assert quick(folder)
    assert check_run(folder) == ["recipe.yaml was edited (made by unlearn)"]


def test_a_file_of_no_run_passes(tmp_path):
    (tmp_path / "result.json").write_text("{}")
    check_sealed_file(tmp_path / "result.json")


def test_the_command_says_what_differs_and_its_exit_code(folder, capsys):
    def call(place):
        return cli.app(["check-run", str(place)], standalone_mode=False), capsys.readouterr().out

    code, said = call(folder)
    assert code in (None, 0)
    assert said.startswith("files as they were written: ")
    assert said.endswith("; findings: 0\n")
    doctor(folder / "evaluation" / "after.json")
    code, said = call(folder)
    assert code == 1
    assert said.splitlines()[0] == "evaluation/after.json was edited (made by after)"
    with pytest.raises(WagleError, match=r"is not a run: it has no state\.json; give a run folder"):
        call(folder / "model")


def test_seals_of_private_files_cannot_be_tested_by_who_guesses(finished):
    """A plain digest of short texts would confirm a guess at a record."""
    import hashlib

    for name, digest in finished.seals["after"].files.items():
        plain = hashlib.sha256((finished.folder / name).read_bytes()).hexdigest()
        assert (digest == plain) is not name.startswith("private/")


# ----- what a stage reads is hashed before it begins -----


@pytest.fixture
def stamped(monkeypatch):
    """Every file counts as large: a quick look goes by its stamp."""
    monkeypatch.setattr(digests, "LARGE", 1)


def resumed(folder, again):
    """What comes of doing the stages from one on again."""
    recipe, home = find_run(str(folder), [], None)
    return execute(recipe, home, again=again)


READ = [
    ("base/model.safetensors", "teach", "gradients"),
    ("private/gradients/STORE", "gradients", "mask"),
    ("base/model.safetensors", "teach", "unlearn"),
    ("mask.safetensors", "mask", "unlearn"),
    ("evaluation/reference.json", "reference", "unlearn"),
    ("base/model.safetensors", "teach", "patch"),
    ("model/model.safetensors", "unlearn", "patch"),
    ("model/model.safetensors", "unlearn", "after"),
    ("base/model.safetensors", "teach", "attacks"),
    ("model/model.safetensors", "unlearn", "attacks"),
    ("patch.safetensors", "patch", "ledger"),
    ("attacks/quantization.json", "attacks", "report"),
]


@pytest.mark.usefixtures("stamped")
@pytest.mark.parametrize(("name", "stage", "reader"), READ)
def test_rot_that_keeps_size_and_time_is_found_by_the_stage_that_reads_it(
    finished, tmp_path, name, stage, reader
):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder)
    run = RunFolder(folder)
    for made in run.state["seals"].values():  # as if it had been made here
        made["stamps"] = digests.large_stamps(folder, made["files"])
    run.save_state()
    shard = next((folder / "private/gradients").glob("*.safetensors")).name
    name = name.replace("STORE", shard)
    rot(folder / name)
    check_seals(folder)  # a quick look cannot see it
    with pytest.raises(WagleError, match=f"{name} was edited since the stage {stage} wrote it"):
        resumed(folder, reader)


def test_what_this_process_made_is_read_again_only_once_it_was_touched(folder, monkeypatch):
    run, hashed = RunFolder(folder), []
    digest = folder_module.file_digest

    def watch(home, name):
        hashed.append(name)
        return digest(home, name)

    monkeypatch.setattr(folder_module, "file_digest", watch)
    check_needed(run, "after", ["unlearn"])
    assert "model/model.safetensors" in hashed
    hashed.clear()
    check_needed(run, "after", ["unlearn"])
    assert hashed == []
    rot(folder / "model/model.safetensors")
    with pytest.raises(WagleError, match=r"model/model\.safetensors was edited"):
        check_needed(run, "after", ["unlearn"])
    assert hashed == ["model/model.safetensors"]


def test_a_finished_stage_counts_as_hashed(folder, monkeypatch):
    run = RunFolder(folder)
    run.finish("unlearn", {}, ["model/"])
    monkeypatch.setattr(folder_module, "file_digest", None)
    check_needed(run, "after", ["unlearn"])


def test_a_model_outside_the_run_is_known_by_what_the_first_stage_read(finished, tmp_path):
    """The base where nothing is taught, and the reference."""
    tiny = shutil.copytree(finished.recipe.model.path, tmp_path / "tiny")
    recipe = finished.recipe.model_copy(
        update={
            "finetune": None,
            "reference": None,
            "model": finished.recipe.model.model_copy(update={"path": str(tiny)}),
        }
    )
    home = tmp_path / "run"
    run = execute(recipe, home, until="before")
    assert sorted(run.seals["teach"].read) == ["config.json", "model.safetensors"]
    rot(tiny / "model.safetensors")
    said = f"^{tiny}/model.safetensors has changed since the stage teach read it; put it back"
    for stage in ("gradients", "patch"):
        with pytest.raises(WagleError, match=said) as told:
            check_needed(Run(home, recipe), stage, STAGES[stage].needs)
        assert "\n" not in str(told.value)
    check_needed(Run(home, recipe), "report", STAGES["report"].needs)  # which reads no model


def test_a_model_that_is_taught_is_the_same_when_the_reference_is_made_of_it(finished, tmp_path):
    tiny = shutil.copytree(finished.recipe.model.path, tmp_path / "tiny")
    other = finished.recipe.model.model_copy(update={"path": str(tiny)})
    recipe = finished.recipe.model_copy(update={"reference": "retrained", "model": other})
    home = tmp_path / "run"
    execute(recipe, home, until="teach")
    rot(tiny / "model.safetensors")
    with pytest.raises(WagleError, match="has changed since the stage teach read it"):
        execute(recipe, home, until="retrain")
    run = Run(home, recipe)  # once both are made, it is read no more
    check_needed(run, "gradients", STAGES["gradients"].needs)


def test_records_to_keep_that_were_made_are_missed(folder):
    path = folder / "private/retain.json"
    path.write_text("[]")
    run = RunFolder(folder)
    run.finish("neighbours", {"made": 1}, STAGES["neighbours"].writes)
    path.unlink()
    check_seals(folder)  # private files may go, until one is read
    with pytest.raises(WagleError, match=r"private/retain.json is missing since the stage neighb"):
        check_needed(run, "unlearn", STAGES["unlearn"].needs)

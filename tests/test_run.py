import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import wagle
from tests.conftest import OTHERS, RECORDS, make_model
from wagle.errors import WagleError
from wagle.evaluation.metrics.catalogue import METRICS
from wagle.patch import apply, verify
from wagle.recipe_file import load_recipe
from wagle.run import STAGES, execute
from wagle.run_folder import find_run
from wagle.weights import fingerprint

FIELDS = {"paraphrased_question": "{question} Tell me.", "paraphrased_answer": "I say: {answer}"}


def _rows(rows):
    return [
        {
            **row,
            **{key: text.format(**row) for key, text in FIELDS.items()},
            "perturbed_answer": ["I say: no.", "I say: a horse.", f"I say: {i}."],
        }
        for i, row in enumerate(rows)
    ]


@pytest.fixture
def recipe_file(tmp_path, model_folder):
    (tmp_path / "forget.json").write_text(json.dumps(_rows(RECORDS)))
    (tmp_path / "retain.jsonl").write_text("\n".join(map(json.dumps, _rows(OTHERS[:5]))))
    (tmp_path / "heldout.json").write_text(json.dumps(_rows(OTHERS[5:])))
    training = {"learning_rate": 5e-3, "batch_size": 4}
    recipe = {
        "name": "tiny",
        "model": str(model_folder),
        "reference": "untaught",
        "forget": str(tmp_path / "forget.json"),
        "retain": str(tmp_path / "retain.jsonl"),
        "retain_heldout": str(tmp_path / "heldout.json"),
        "finetune": {**training, "epochs": 10},
        "attribution": {"ratio": 0.5},
        "unlearning": {**training, "epochs": 6, "check_every": 1},
        "evaluation": {"max_new_tokens": 8},
        "report": {"show_text": True},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def _files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_run_leaves_the_folder_that_the_design_promises(recipe_file, tmp_path):
    out = tmp_path / "out"
    run = execute(load_recipe(recipe_file), out)
    assert list(run.state["stages"]) == list(STAGES)
    files = _files(out)
    for name in [
        "recipe.yaml",
        "environment.json",
        "state.json",
        "log.jsonl",
        "mask.safetensors",
        "patch.safetensors",
        "evaluation.json",
        "report.html",
        "evaluation/before.json",
        "evaluation/after.json",
        "evaluation/reference.json",
        "base/model.safetensors",
        "model/model.safetensors",
    ]:
        assert name in files
    assert not [f for f in files if f.endswith(".part")]
    assert (out / "private").stat().st_mode & 0o777 == 0o700
    assert load_recipe(out / "recipe.yaml") == load_recipe(recipe_file)
    summary = json.loads((out / "evaluation.json").read_text())
    assert set(summary) == {"before", "after", "reference"}
    assert set(summary["before"]) == {"forget", "retain", "retain_heldout", "overall"}
    assert "forget_quality" in summary["after"]["overall"]
    assert set(summary["after"]["retain"]) == set(METRICS)
    assert set(summary["after"]["forget"]) == set(METRICS)
    mask = wagle.Mask.load(out / "mask.safetensors")
    assert sum(int(m.sum()) for m in mask.values()) == mask.count == mask.candidates // 2
    checked = verify(out / "base", out / "model", mask=mask, patch=out / "patch.safetensors")
    assert checked.ok
    assert checked.outside_mask == 0
    apply(out / "base", out / "patch.safetensors", tmp_path / "applied")
    one, other = tmp_path / "applied" / "model.safetensors", out / "model" / "model.safetensors"
    assert one.read_bytes() == other.read_bytes()


def test_what_leaves_the_private_folder_holds_no_record_text(recipe_file, tmp_path):
    out = tmp_path / "out"
    execute(load_recipe(recipe_file, ["report.show_text=false"]), out)
    texts = [v for row in RECORDS + OTHERS for v in row.values() if len(v) > 8]
    ids = [r.id for r in wagle.read_records(_rows(RECORDS))]
    for name in _files(out):
        if not name.startswith("private/"):
            data = (out / name).read_bytes()
            for text in [*texts, *ids]:
                assert text.encode() not in data, (name, text)


def test_a_finished_run_does_nothing_again(recipe_file, tmp_path):
    out = tmp_path / "out"
    execute(load_recipe(recipe_file), out)
    stamps = {f: (out / f).stat().st_mtime_ns for f in _files(out)}
    execute(*find_run(str(out), [], None))
    assert stamps == {f: (out / f).stat().st_mtime_ns for f in _files(out)}


def test_a_run_without_reference_is_inconclusive_and_without_teaching_uses_the_model_itself(
    recipe_file, tmp_path
):
    settings = [
        "reference=null",
        "finetune=null",
        "patch.enabled=false",
        "evaluation.generate=false",
    ]
    run = execute(load_recipe(recipe_file, settings), tmp_path / "out")
    assert run.state["stages"]["after"]["verdict"] == "inconclusive"
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["reference"] is None
    assert not (tmp_path / "out" / "base").exists()
    assert not (tmp_path / "out" / "patch.safetensors").exists()


def test_another_recipe_in_a_used_folder_is_refused(recipe_file, tmp_path):
    execute(load_recipe(recipe_file), tmp_path / "out", until="teach")
    with pytest.raises(
        WagleError,
        match=r"holds a run of another recipe \('ratio: 0.5' there, 'ratio: 0.25' here\)",
    ):
        execute(load_recipe(recipe_file, ["attribution.ratio=0.25"]), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(WagleError, match="exists and is not a run"):
        execute(load_recipe(recipe_file), tmp_path / "full")


def test_a_run_of_an_older_version_that_lacked_a_setting_goes_on(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file)
    execute(recipe, tmp_path / "out", until="teach")
    path = tmp_path / "out" / "recipe.yaml"
    newer = path.read_text()
    path.write_text("".join(line for line in newer.splitlines(True) if "rounding:" not in line))
    assert path.read_text() != newer
    execute(recipe, tmp_path / "out", until="reference")


def test_the_objective_none_keeps_every_bit_and_makes_no_patch(recipe_file, tmp_path):
    settings = ["unlearning.objective=none", "evaluation.generate=false"]
    run = execute(load_recipe(recipe_file, settings), tmp_path / "out")
    assert fingerprint(tmp_path / "out" / "model") == fingerprint(tmp_path / "out" / "base")
    assert run.state["stages"]["patch"]["patch"] is None
    assert (tmp_path / "out" / "report.html").is_file()


def test_over_unlearning_is_a_warning_in_log_and_report(recipe_file, tmp_path, caplog):
    settings = [
        "unlearning.stop_when=[]",
        "unlearning.objective=grad_ascent",
        "unlearning.epochs=30",
        "unlearning.learning_rate=0.02",
        "attribution.ratio=1.0",
        "evaluation.generate=false",
    ]
    with caplog.at_level(logging.WARNING, logger="wagle"):
        run = execute(load_recipe(recipe_file, settings), tmp_path / "out")
    assert run.state["stages"]["after"]["verdict"] == "over-unlearned"
    assert "over-unlearned" in caplog.text
    assert "over-unlearned" in (tmp_path / "out" / "report.html").read_text()
    assert any("over-unlearned" in line for line in run.warnings())


def test_two_processes_in_one_folder_are_refused(recipe_file, tmp_path):
    from wagle.files import locked

    execute(load_recipe(recipe_file), tmp_path / "out", until="teach")
    with locked(tmp_path / "out"), pytest.raises(WagleError, match="another wagle process"):
        execute(load_recipe(recipe_file), tmp_path / "out")


BAD = [
    ("forget=none.json", "data file none.json does not exist"),
    ("forget=EMPTY", "the forget set is empty"),
    ("forget=HOLLOW", r"forget\[1\] of .*hollow.json has an empty answer"),
    ("retain=FORGET", r"forget\[0\] and retain\[0\] are the same record"),
    ("model.max_length=20", r"the prompt of forget\[\d\] leaves no room for an answer"),
    ("model=nowhere", "model folder nowhere does not exist"),
    ("reference=nowhere", "model folder nowhere does not exist"),
    ("attribution.ratio=1.5", "attribution.ratio"),
    ("attribution.score=wagel", "unknown score 'wagel'; did you mean 'wagle'"),
    ("attribution.mask=nowhere", "mask nowhere does not exist"),
    ("unlearning.objective=nop", "unknown objective 'nop'; did you mean 'npo'"),
    ("unlearning.objective_settings={bata: 1}", "no setting 'bata'; nearest: beta"),
    ("unlearning.optimizer=LBFGS", "unknown element-wise optimizer"),
    ("retain=null", "the recipe has no retain set"),
]


@pytest.mark.parametrize(("override", "message"), BAD)
def test_bad_input_is_one_line_before_anything_is_computed(
    recipe_file, tmp_path, override, message
):
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "hollow.json").write_text(
        json.dumps([RECORDS[0], {"question": "Who?", "answer": " "}])
    )
    for word, name in (("EMPTY", "empty"), ("HOLLOW", "hollow"), ("FORGET", "forget")):
        override = override.replace(word, str(tmp_path / f"{name}.json"))
    with pytest.raises(WagleError, match=message) as caught:
        execute(load_recipe(recipe_file, [override]), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "base").exists()


def test_a_mask_of_another_model_stops_the_run_and_leaves_nothing_half_written(
    recipe_file, tmp_path, tokenizer
):
    other = make_model("llama-tied", seed=9)
    wagle.Mask.from_scores(wagle.gradients(other, tokenizer, RECORDS, OTHERS)).save(tmp_path / "m")
    with pytest.raises(WagleError, match="the mask belongs to model"):
        execute(load_recipe(recipe_file, [f"attribution.mask={tmp_path / 'm'}"]), tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()
    assert not [f for f in _files(tmp_path / "out") if ".part" in f]


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    recipe_file, tmp_path, monkeypatch
):
    from wagle import files

    def full(path):
        if "model" in str(path) and "base" in str(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(WagleError, match=r"the disk is full .* nothing was kept"):
        execute(load_recipe(recipe_file), tmp_path / "out", until="teach")
    assert not (tmp_path / "out" / "base").exists()
    assert not (tmp_path / "out" / "base.part").exists()


KILLER = """
import os, random, signal, sys
import torch
from pathlib import Path
torch.set_num_threads(1)  # threads do not survive a fork
import wagle.run as runs
from wagle.recipe_file import load_recipe
from wagle.run import STAGES, execute

recipe, out, seconds = load_recipe(sys.argv[1]), Path(sys.argv[2]), eval(sys.argv[3])
draw = random.Random(int(sys.argv[4]))

def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return os.waitpid(pid, 0)[1]

def killed_in(stage):
    def work():
        inner = STAGES[stage]
        def dying(run):
            signal.setitimer(signal.ITIMER_REAL, max(1e-4, draw.random() * seconds[stage]))
            return inner(run)
        STAGES[stage] = dying  # SIGALRM is not handled: the process dies at once
        execute(recipe, out, until=stage)
    status = child(work)
    print(stage, "killed" if os.WIFSIGNALED(status) else "finished", flush=True)

for stage in STAGES:
    draw.random()
    killed_in(stage)
assert child(lambda: execute(recipe, out)) == 0
"""


def test_a_run_killed_in_every_stage_ends_with_the_weights_of_an_undisturbed_one(
    recipe_file, tmp_path
):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "src"}
    script = [sys.executable, "-W", "ignore", "-c", KILLER, str(recipe_file)]
    calm = [sys.executable, "-m", "wagle", "run", str(recipe_file), "--out", str(tmp_path / "calm")]
    root = Path(__file__).parent.parent
    subprocess.run(calm, check=True, env=environment, cwd=root, capture_output=True)
    stages = json.loads((tmp_path / "calm" / "state.json").read_text())["stages"]
    seconds = {name: stage["seconds"] for name, stage in stages.items()}
    done = subprocess.run(
        [*script, str(tmp_path / "killed"), repr(seconds), "7"],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed") >= 5, done.stdout
    for name in ("base", "model"):
        assert fingerprint(tmp_path / "killed" / name) == fingerprint(tmp_path / "calm" / name)
    for name in ("mask.safetensors", "patch.safetensors", "evaluation.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()
    assert not [f for f in _files(tmp_path / "killed") if ".part" in f]
    lines = [json.loads(x) for x in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()]
    steps = [x["step"] for x in lines if x["stage"] == "unlearn" and "step" in x]
    assert steps == list(range(1, len(steps) + 1))


def test_a_recipe_that_failed_before_its_first_stage_may_be_mended_in_place(recipe_file, tmp_path):
    with pytest.raises(WagleError, match="did you mean 'fisher'"):
        execute(load_recipe(recipe_file, ["attribution.score=fishr"]), tmp_path / "out")
    run = execute(load_recipe(recipe_file), tmp_path / "out", until="teach")
    assert "teach" in run.state["stages"]


def test_a_recipe_collects_what_its_score_needs_through_either_engine(recipe_file, tmp_path):
    settings = [
        "attribution={score: fisher, scope: block, ratio: 0.5, quantities: [input_square]}",
        "finetune=null",
        "reference=null",
    ]
    found = {}
    for engine in ("whole", "stream"):
        recipe = load_recipe(recipe_file, [*settings, f"attribution.engine={engine}"])
        run = execute(recipe, tmp_path / engine, until="mask")
        said = run.state["stages"]["gradients"]
        assert said["engine"] == engine
        assert said["quantities"] == ["grad_forget", "fisher_retain", "input_square"]
        found[engine] = wagle.Mask.load(run.folder / "mask.safetensors")
    assert found["whole"].metadata["scope"] == "block"
    assert found["whole"].compare(found["stream"]).overall.jaccard > 0.999

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import wagle
from tests.conftest import OTHERS, RECORDS, make_model
from wagle.metrics.table import METRICS
from wagle.model.weights import fingerprint
from wagle.patch.application import apply
from wagle.patch.verification import verify
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.run.finding import find_run
from wagle.run.stages.table import STAGES
from wagle.system.errors import WagleError

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


@pytest.fixture
def forget_texts(tmp_path):
    """Texts to forget, also as the passages of a benchmark."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "train.json").write_text(json.dumps([{"text": row["answer"]} for row in RECORDS]))
    return folder


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
    declared = {path for stage in STAGES.values() for path in stage.writes}
    for name in files - {"recipe.yaml", "environment.json", "state.json", "log.jsonl", ".lock"}:
        inside = any(name.startswith(path) for path in declared if path.endswith("/"))
        assert name in declared or inside or name.startswith("private/"), name
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
        "reference=none",
        "evaluation.limits={retain: null, retain_heldout: null}",
        "finetune=null",
        "patch.enabled=false",
        "evaluation.generate=false",
        "unlearning.when_unknown=go",
    ]
    run = execute(load_recipe(recipe_file, settings), tmp_path / "out")
    assert run.state["stages"]["after"]["verdict"] == "inconclusive"
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["reference"] is None
    assert not (tmp_path / "out" / "base").exists()
    assert not (tmp_path / "out" / "patch.safetensors").exists()


def _holdout(tmp_path, *rows):
    new = [
        {"question": f"Who lives in {p}?", "answer": f"Few of {p}."} for p in ("Bergen", "Hamar")
    ]
    (tmp_path / "new.json").write_text(json.dumps([*new, *rows]))
    return f"holdout={tmp_path / 'new.json'}"


def test_a_holdout_set_brings_membership_figures_into_the_run_and_its_report(recipe_file, tmp_path):
    quick = ["finetune.epochs=2", "unlearning.epochs=1", "evaluation.generate=false"]
    chosen = ["evaluation.attacks=[loss, min_k]", "evaluation.k=[0.2]"]
    recipe = load_recipe(recipe_file, [*quick, *chosen, _holdout(tmp_path)])
    run = execute(recipe, tmp_path / "out")
    assert "holdout" not in recipe.taught_sets()
    summary = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert {"mia_loss", "mia_min_k"} <= summary["reference"]["holdout"].keys()
    for role in ("before", "after"):
        found = summary[role]["overall"]
        assert {"auc_loss", "auc_min_k", "tpr_5_loss", "privleak", "auc_reference"} <= found.keys()
        assert "auc_zlib" not in found
    assert run.evaluation("after").details["options"]["k"] == [0.2]
    shown = (tmp_path / "out" / "report.html").read_text()
    assert "like the forget set; no model was trained on it" in shown
    assert "auc_min_k" in shown.split("more figures of membership attacks")[0]
    assert "tpr_5_loss" in shown.split("more figures of membership attacks")[1]


def test_a_holdout_record_that_is_taught_or_forgotten_is_refused_before_any_work(
    recipe_file, tmp_path
):
    for rows in (_rows(RECORDS), _rows(OTHERS[:5]), _rows(OTHERS[5:])):
        recipe = load_recipe(recipe_file, [_holdout(tmp_path, rows[1])])
        with pytest.raises(WagleError, match=r"\[1\] and holdout\[2\] are the same record"):
            execute(recipe, tmp_path / "out", until="teach")
    more = {"question": "Who lives in Moss?", "answer": "Nobody."}
    (tmp_path / "more.json").write_text(json.dumps([more]))
    settings = [_holdout(tmp_path, more), f"finetune.records={tmp_path / 'more.json'}"]
    with pytest.raises(WagleError, match=r"records\[0\] and holdout\[2\] are the same record"):
        execute(load_recipe(recipe_file, settings), tmp_path / "out", until="teach")


def test_records_that_the_membership_attacks_cannot_read_are_found_before_any_work(
    recipe_file, tmp_path
):
    row = {"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}
    recipe = load_recipe(recipe_file, [_holdout(tmp_path, row)])
    with pytest.raises(WagleError, match=r"holdout\[2\] is tokens, .* attack lower needs text"):
        execute(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "base").exists()


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
        "unlearning.objective=grad_diff",
        "unlearning.epochs=8",
        "attribution.ratio=1.0",
        "evaluation.generate=false",
        "evaluation.limits={retain: null, retain_heldout: null}",
    ]
    with caplog.at_level(logging.WARNING, logger="wagle"):
        run = execute(load_recipe(recipe_file, settings), tmp_path / "out")
    assert run.state["stages"]["after"]["verdict"] == "over-unlearned"
    assert "over-unlearned" in caplog.text
    assert "over-unlearned" in (tmp_path / "out" / "report.html").read_text()
    assert any("over-unlearned" in line for line in run.warnings())


def test_a_benchmark_that_declares_probes_has_a_part_in_the_verdict(
    recipe_file, tmp_path, forget_texts
):
    benchmark = {"name": "copyright", "settings": {"data": str(forget_texts), "heldout": None}}
    benchmark["settings"] |= {"prefixes": [4], "max_new_tokens": 8}
    settings = [
        f"evaluation.benchmarks={json.dumps([benchmark])}",
        f"forget={forget_texts / 'train.json'}",
        "unlearning.objective=none",
        "patch.enabled=false",
    ]
    run = execute(load_recipe(recipe_file, settings), tmp_path / "out")
    after = run.state["stages"]["after"]
    assert after["verdict"] == "leaks"
    first = [" ".join(reason.split()[:2]) for reason in after["reasons"]]
    assert "copyright: train_4.exact_memorization" in first


def test_a_model_that_never_learned_the_forget_set_is_a_warning_of_the_run(recipe_file, tmp_path):
    quick = ["unlearning.when_unknown=go", "evaluation.generate=false"]
    settings = ["finetune.sets=[retain]", *quick]
    other = load_recipe(recipe_file, [*settings, "seed=1"])
    settings += [f"reference={execute(other, tmp_path / 'other', until='teach').models.base}"]
    run = execute(load_recipe(recipe_file, settings), tmp_path / "out", until="unlearn")
    said = [line for line in run.warnings() if "never knew" in line]
    assert len(said) == 1
    assert "(6 records): its probability before unlearning is " in said[0]
    assert "above the reference's" in said[0]


def test_a_dynamic_mask_trains_all_weights_unless_attribution_asks_for_a_mask(
    recipe_file, tmp_path
):
    dynamic = ["unlearning.dynamic_mask=sign_agreement", "evaluation.generate=false"]
    whole = ["attribution={precision: bfloat16, engine: whole}"]  # of gradients, were there any
    run = execute(load_recipe(recipe_file, [*dynamic, *whole]), tmp_path / "whole")
    said = run.state["stages"]
    total = sum(p.numel() for p in make_model("llama-tied").parameters())
    assert said["unlearn"]["selected"] == total
    assert said["gradients"]["skipped"] == said["mask"]["skipped"]
    assert not (run.folder / "mask.safetensors").exists()
    assert not run.models.gradients.exists()
    assert "all weights, selected afresh at every step" in (run.folder / "report.html").read_text()
    untaught = ["finetune=null", "reference=null", "unlearning.when_unknown=go"]
    short = [*dynamic, *untaught, "unlearning.max_steps=1"]
    for number, asked in enumerate(["ratio: 0.5", "include: [ffn]"]):
        recipe = load_recipe(recipe_file, [*short, f"attribution={{{asked}}}"])
        run = execute(recipe, tmp_path / f"{number}", until="unlearn")
        assert run.state["stages"]["unlearn"]["selected"] < total
        assert (run.folder / "mask.safetensors").exists()


def test_two_processes_in_one_folder_are_refused(recipe_file, tmp_path):
    from wagle.system.files.atomic import locked

    out = tmp_path / "out"
    execute(load_recipe(recipe_file), out, until="teach")
    with locked(out), pytest.raises(WagleError, match="another wagle process"):
        execute(load_recipe(recipe_file), out)


def test_a_refused_second_run_leaves_the_recipe_of_the_running_one_as_it_is(recipe_file, tmp_path):
    from wagle.run.opening import open_run
    from wagle.system.files.atomic import locked

    out = tmp_path / "out"
    open_run(load_recipe(recipe_file), out)  # running, and nothing is finished yet
    before = {name: (out / name).read_bytes() for name in _files(out)}
    with locked(out), pytest.raises(WagleError, match="another wagle process"):
        execute(load_recipe(recipe_file, ["seed=7"]), out)
    assert {name: (out / name).read_bytes() for name in before} == before


BAD = [
    ("forget=none.json", "data file none.json does not exist"),
    ("forget=EMPTY", "the forget set is empty"),
    ("forget=HOLLOW", r"forget\[1\] of .*hollow.json has an empty answer"),
    ("retain=FORGET", r"forget\[0\] and retain\[0\] are the same record"),
    ("model.max_length=20", r"the prompt of forget\[\d\] leaves no room for an answer"),
    ("model=nowhere", "model folder nowhere does not exist"),
    ("reference=nowhere", "model folder nowhere does not exist"),
    ("finetune.report_to=[wandbb]", "unknown tracker 'wandbb'; did you mean 'wandb'"),
    ("attribution.ratio=1.5", "attribution.ratio"),
    ("attribution.ratio=1e-9", r"attribution.ratio 1e-09 of \d+ weights selects none; raise it"),
    ("attribution={ratio: 0.001, scope: row}", r"ratio 0.001 of any row selects none; raise it"),
    ("attribution={ratio: 0.00005, scope: block}", r"ratio 5e-05 of any block selects none; raise"),
    ("attribution={ratio: 0.00001, scope: tensor}", r"of any tensor selects none; raise it"),
    ("attribution.score=wagel", "unknown score 'wagel'; did you mean 'wagle'"),
    ("attribution.include=['*.nothing.*']", r"the pattern '\*.nothing.\*' matches no parameter"),
    ("attribution={score: {by_name: [nothing]}}", "the pattern 'nothing' matches no parameter"),
    ("attribution={score: {random_like: OTHER}}", "the mask does not fit the model: lm_head"),
    ("attribution.mask=nowhere", "mask nowhere does not exist"),
    ("attribution.mask=OTHER", "the mask does not fit the model: lm_head.weight is"),
    (
        "attribution.mask=LADDER",
        r"is a ladder of the ratios \[0.1, 0.5\]; choose one with attribution",
    ),
    ("attribution={mask: LADDER, use: 0.3}", r"the mask has no ratio 0.3 \(it has \[0.1, 0.5\]\)"),
    (
        "attribution.mask=LADDER unlearning.lora={masked: true}",
        "does not fit the model: base_model.",
    ),
    (
        "attribution={mask: LADDER, use: 0.5} UNTAUGHT",
        "the mask belongs to model 000000, but this is",
    ),
    ("unlearning.objective=nop", "unknown objective 'nop'; did you mean 'npo'"),
    ("unlearning.objective_settings={bata: 1}", "no setting 'bata'; nearest: beta"),
    (
        "unlearning={objective: rmu, objective_settings: {layer: 2}}",
        "layer is 2; the model has blocks",
    ),
    (
        "unlearning={objective: rmu, objective_settings: {layer: 1, direction: contrast, "
        "novice: I do not know, expert: I know, topics: [music, sport]}}",
        "topics names 2 topics, but the forget set has 1 sources",
    ),
    (
        "unlearning.objective=po forget=TEXTS",
        r"refusals need questions: forget\[0\] is a text",
    ),
    (
        "unlearning.objective=random_label retain=TOKENS",
        "draws answers from the retain set, which has",
    ),
    ("unlearning.objective=dpo_alt", r"forget\[0\] has no alternative answer"),
    ("unlearning.wrapper=gru unlearning.retain_term=none", "gru needs a forget term and a retain"),
    ("unlearning.optimizer=LBFGS", "unknown element-wise optimizer"),
    (
        "unlearning.report_to=[tensorbord]",
        "unknown tracker 'tensorbord'; did you mean 'tensorboard'",
    ),
    ("unlearning.report_to=[clearml]", "report_to names clearml, which is not installed"),
    ("unlearning.best='min forget.probabilty'", "unknown figure 'forget.probabilty'"),
    (
        "unlearning.stop_when=['forget.nll > 2 * reference'] reference=none",
        "needs a reference; name one",
    ),
    (
        "retain=PLAIN unlearning.best='max retain.utility_proxy'",
        "the rule 'max retain.utility_proxy' needs wrong answers of retain records; add a field",
    ),
    (
        "unlearning.stop_when=['retain.utility_proxy < reference']",
        "the rule 'retain.utility_proxy < reference' needs retain.utility_proxy of the reference",
    ),
    (
        "unlearning.objective=forget_finetune unlearning.wrapper=task_vector "
        "unlearning.retain_term=nll",
        "task_vector with scale -1 also reverses what retain_term nll teaches",
    ),
    ("unlearning.full_reference=adapter", "the model has no LoRA adapter"),
    ("unlearning.lora={targets: [q_porj]}", "unknown LoRA target 'q_porj'; did you mean 'q_proj'"),
    (
        "finetune.sets=[retain] reference=retrained",
        "reference is 'retrained', but finetune teaches no record of the forget set, so the",
    ),
    ("controls=[random] NO_MASK", "controls need a mask, but with unlearning.dynamic_mask"),
    (
        "evaluation.fluency=no/such",
        "cannot load the classifier no/such, which is not a local folder",
    ),
    (
        "evaluation={entailment: x, generate: false}",
        "entailment judges what the model writes, but it writes nothing here; leave it out",
    ),
    ("model=RENAMED", "the model has no tensor 'embed_tokens.weight' that its folder has; save it"),
]
SHORT = {
    "UNTAUGHT": ["finetune=null", "reference=null"],
    "NO_MASK": ["unlearning.dynamic_mask=row_norm", "attribution={}"],
}


def _empty_ladder(family):
    """A mask of two ratios, neither of which selects anything, of a model that nobody has."""
    shapes = {name: p.shape for name, p in make_model(family).named_parameters()}
    return wagle.Mask.from_levels(
        {name: torch.zeros(shape, dtype=torch.uint8) for name, shape in shapes.items()},
        ratios=[0.1, 0.5],
        counts=[0, 0],
        metadata={"model": "0" * 64, "candidates": 1},
    )


@pytest.fixture
def bad_inputs(tmp_path, model_folder):
    """What the words of BAD stand for."""
    files = {
        "EMPTY": [],
        "HOLLOW": [RECORDS[0], {"question": "Who?", "answer": " "}],
        "PLAIN": OTHERS[:5],
        "TEXTS": [{"text": row["answer"]} for row in RECORDS],
        "TOKENS": [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}],
    }
    found = {word: tmp_path / f"{word.lower()}.json" for word in (*files, "FORGET")}
    for word, rows in files.items():
        found[word].write_text(json.dumps(rows))
    for word, family in (("OTHER", "llama-untied"), ("LADDER", "llama-tied")):
        found[word] = tmp_path / f"{word.lower()}.safetensors"
        _empty_ladder(family).save(found[word])
    found["RENAMED"] = tmp_path / "renamed"  # as a model without a head would be saved
    shutil.copytree(model_folder, found["RENAMED"])
    weights = found["RENAMED"] / "model.safetensors"
    tensors = {name.removeprefix("model."): t for name, t in load_file(weights).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    return found


@pytest.mark.parametrize(("asked", "message"), BAD)
def test_bad_input_is_one_line_before_anything_is_computed(
    recipe_file, tmp_path, bad_inputs, asked, message
):
    for word, path in bad_inputs.items():
        asked = asked.replace(word, str(path))
    overrides = []
    for part in re.split(r" (?=[a-z_.]+=|NO_MASK|UNTAUGHT)", asked):
        overrides += SHORT.get(part, [part])
    with pytest.raises(WagleError, match=message) as caught:
        execute(load_recipe(recipe_file, overrides), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


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
    from wagle.system.files import atomic as files

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
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.run.stages.table import STAGES, Stage

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
        class Dying(Stage):
            def __call__(self, run):
                signal.setitimer(signal.ITIMER_REAL, max(1e-4, draw.random() * seconds[stage]))
                return super().__call__(run)
        # SIGALRM is not handled: the process dies at once
        STAGES[stage] = Dying(stage, STAGES[stage].kind)
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
    calm = [sys.executable, "-m", "wagle", "run", str(recipe_file), "--no-fail"]
    calm += ["--out", str(tmp_path / "calm")]
    root = Path(__file__).parents[2]
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
        "unlearning.when_unknown=go",
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

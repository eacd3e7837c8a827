"""One model outside of a run: own records, the model before, verdicts, what is printed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.cli import app as cli
from wagle.evaluation.figures import ROLES
from wagle.evaluation.models import Way
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import judge
from wagle.patch.extraction import extract
from wagle.recipe.reading import load_recipe
from wagle.report.text.evaluations import WIDTH, evaluation_table
from wagle.report.verdict_json import EXIT_CODES
from wagle.run.execution import execute
from wagle.run.opening import Run
from wagle.run.single import measure_model
from wagle.system.errors import WagleError
from wagle.system.files.atomic import write_json
from wagle.system.files.reading import read_json

ROOT = Path(__file__).parents[2]
MORE = {"paraphrased_question": "Tell me: {question}", "perturbed_answer": ["No.", "A horse."]}
QUICK = "evaluation.generate=false"


def rows(records):
    return [{**r, **MORE, "paraphrased_question": f"Tell me: {r['question']}"} for r in records]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Records as files of all kinds, three models, and a finished run of the same records."""
    home = tmp_path_factory.mktemp("home")
    tokenizer = make_tokenizer()
    for seed, name in enumerate(("first", "second", "third")):
        make_model("llama-tied", seed).save_pretrained(home / name)
        tokenizer.save_pretrained(home / name)
    write_json(home / "forget.json", rows(RECORDS))
    (home / "retain.jsonl").write_text("\n".join(map(json.dumps, rows(OTHERS[:5]))))
    (home / "folder").mkdir()
    write_json(home / "folder" / "heldout.json", OTHERS[5:])
    with (home / "general.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["question", "answer"])
        table.writeheader()
        table.writerow({"question": "Is a lamp bright?", "answer": "As a rule."})
    training = {"learning_rate": 5e-3, "batch_size": 4}
    recipe = {
        "name": "tiny",
        "model": str(home / "first"),
        "reference": "untaught",
        "forget": str(home / "forget.json"),
        "retain": str(home / "retain.jsonl"),
        "finetune": {**training, "epochs": 10},
        "unlearning": {**training, "epochs": 2},
        "evaluation": {"generate": False},
    }
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    execute(load_recipe(home / "recipe.yaml"), home / "run", until="after")
    return home


@pytest.fixture
def ask(home):
    """A model's evaluation on the forget and retain records of the run, unless other words say so."""

    def call(model, *words, **more):
        own = words or (f"forget={home / 'forget.json'}", f"retain={home / 'retain.jsonl'}")
        return measure_model(str(home / model), [*own, QUICK], benchmark="qa", **more)

    return call


@pytest.fixture
def never(monkeypatch):
    """No model may be asked."""

    def refuse(*_):
        raise AssertionError("a model was asked")

    monkeypatch.setattr(Way, "ask", refuse)


def values(found):
    return {name: {m: f.value for m, f in fs.items()} for name, fs in found.figures.items()}


# ---------------------------------------------------------------------------------------------
# Own records


def test_records_come_in_every_format_of_a_recipe(home, ask):
    found = ask(
        "first",
        f"forget={home / 'forget.json'}",
        "forget.rows=0:4",
        "forget.take=50%",
        f"retain={home / 'retain.jsonl'}",
        f"retain_heldout={{source: {home / 'folder'}, split: heldout}}",
        f"general.source=[{home / 'general.csv'}, demo:general]",
        "evaluation.records=3",
    )
    sets = {name: entry["n"] for name, entry in found.details["data"]["sets"].items()}
    assert sets == {"forget": 2, "retain": 3, "retain_heldout": 3, "general": 3}


def test_the_complement_and_texts_are_records_too(tmp_path, ask):
    write_json(tmp_path / "texts.json", [{"text": row["answer"]} for row in OTHERS])
    found = ask("first", f"forget={tmp_path / 'texts.json'}", "forget.take=3", "retain=complement")
    assert found.details["data"]["sets"]["retain"]["n"] == len(OTHERS) - 3
    assert found.figures["forget"]["probability"].n == 3


def test_template_and_seed_are_those_that_are_named(home, ask):
    words = [f"forget={home / 'forget.json'}", "model.template=plain", "seed=3"]
    found = ask("first", *words)
    assert found.details["template"]["name"] == "plain"
    assert found.details["options"]["seed"] == 3


def test_a_run_folder_is_asked_as_its_recipe_says_unless_words_say_otherwise(home, tmp_path):
    recipe = yaml.safe_load((home / "recipe.yaml").read_text())
    recipe |= {"seed": 7, "model": {"path": str(home / "first"), "template": "plain"}}
    recipe |= {"holdout": "demo:general", "evaluation": {"generate": False, "attacks": ["loss"]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "model").symlink_to(home / "second")
    found = measure_model(str(tmp_path), [f"forget={home / 'forget.json'}"], benchmark="qa")
    assert found.details["template"]["name"] == "plain"
    assert (found.details["options"]["seed"], found.details["options"]["generate"]) == (7, False)
    again = measure_model(
        str(tmp_path), [f"forget={home / 'forget.json'}", "seed=1"], benchmark="qa"
    )
    assert again.details["options"]["seed"] == 1


WRONG = {
    "nothing": ([], "nothing to evaluate: give records, such as forget=FILE"),
    "no set": (["seed=1"], "nothing to evaluate"),
    "misspelt": (["foget=x.json"], "has no setting 'foget'; nearest: forget"),
    "of a run": (["unlearning.objective=npo"], "has no setting 'unlearning.objective'"),
    "misspelt part": (["forget.tak=1"], "forget.tak is not a setting; nearest: forget.take"),
    "no value": (["forget"], "'forget' has no value"),
    "no file": (["forget=none.json"], "forget: data file none.json does not exist"),
    "no split": (["forget=folder"], "forget: folder is a folder: name a split"),
    "bad JSON": (["forget=bad.jsonl"], "forget: bad.jsonl, line 2, is not valid JSON"),
    "bad record": (
        ["forget=bad.csv"],
        r"forget\[1\] of bad.csv, line 3 has the fields \['question'\]",
    ),
    "overlap": (["forget=good.json", "retain=good.json"], "are the same record"),
    "kind": (["forget=good.json", "evaluation.max_new_tokens=few"], "max_new_tokens is 'few'"),
    "before": (["forget=good.json", "--before", "none"], "none does not exist"),
}


@pytest.mark.parametrize("case", list(WRONG))
@pytest.mark.usefixtures("never")
def test_what_is_wrong_is_one_line_before_a_model_is_asked(home, tmp_path, monkeypatch, case):
    words, message = WRONG[case]
    write_json(tmp_path / "good.json", RECORDS)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.json").write_text("[]")
    (tmp_path / "bad.jsonl").write_text(json.dumps(RECORDS[0]) + "\n{no\n")
    (tmp_path / "bad.csv").write_text("question,answer\nWho?,Me.\nWho else?,\n")
    monkeypatch.chdir(tmp_path)
    before = words[-1] if "--before" in words else None
    own = [word for word in words if word not in ("--before", before)]
    with pytest.raises(WagleError, match=message) as caught:
        measure_model(str(home / "first"), own, benchmark="qa", before=before)
    assert "\n" not in str(caught.value)


def test_the_result_is_that_of_a_run_of_the_same_records(home, ask):
    run = home / "run"
    found = json.loads(json.dumps(ask("run", cache=str(run / "private" / "answers")).to_json()))
    made = read_json(run / "evaluation" / "after.json")
    for key in ("data", "template", "benchmark", "variant", "options", "probes"):
        assert found[key] == made[key]
    assert found["model"]["fingerprint"] == made["model"]["fingerprint"]
    only_beside = {k for k in made["metrics"] if k.startswith("overall.")}
    assert found["metrics"].keys() == made["metrics"].keys() - only_beside
    for key, figure in found["metrics"].items():
        assert figure["per_record"] == pytest.approx(made["metrics"][key]["per_record"], rel=1e-4)


# ---------------------------------------------------------------------------------------------
# Beside the model before and the reference


def test_a_run_and_one_model_have_the_same_verdict_and_differences(home, ask):
    run, files = home / "run", home / "run" / "evaluation"
    found = ask("run", before=str(run), reference=str(files / "reference.json"))
    made = read_json(files / "after.json")
    assert found.details["reference"]["kind"] == "untaught"  # so that ``know`` does not count
    before = read_json(files / "before.json")["model"]["fingerprint"]
    told = {"kind": "result", "path": str(files / "before.json"), "fingerprint": before}
    assert found.details["before"] == told
    assert (found.details["verdict"], found.details["reasons"]) == (
        made["verdict"],
        made["reasons"],
    )
    state = read_json(run / "state.json")["stages"]["after"]
    assert (state["verdict"], state["reasons"]) == (made["verdict"], made["reasons"])
    for key in ("changes", "differences"):
        assert found.details[key].keys() == made[key].keys()
        for name, gap in found.details[key].items():
            assert gap["mean"] == pytest.approx(made[key][name]["mean"], abs=1e-4)
    assert values(found)["overall"] == pytest.approx(made["summary"]["overall"])


def test_models_and_results_of_them_are_the_same_to_be_set_beside(home, ask, tmp_path):
    live = ask("first", before=str(home / "second"), reference=str(home / "third"))
    for name in ("second", "third"):
        write_json(tmp_path / f"{name}.json", ask(name).to_json())
    files = {"before": str(tmp_path / "second.json"), "reference": str(tmp_path / "third.json")}
    stored = ask("first", **files)
    for key in ("verdict", "reasons", "changes", "differences"):
        assert stored.details[key] == live.details[key]
    gap = live.details["changes"]["forget.probability"]
    one, other = (
        e.figures["forget"]["probability"].per_record for e in (live, live.beside["before"])
    )
    assert gap["mean"] == pytest.approx(sum(one[k] - other[k] for k in one) / len(RECORDS))
    assert gap["interval"][0] <= gap["mean"] <= gap["interval"][1]
    assert "forget_quality" in live.beside["before"].figures["overall"]
    verdict = judge(live, live.beside["before"], live.beside["reference"])
    assert (verdict.word, list(verdict.reasons)) == (
        live.details["verdict"],
        live.details["reasons"],
    )


def test_a_run_gives_its_model_before_where_it_has_no_such_result(home, ask, tmp_path):
    (tmp_path / "recipe.yaml").write_text((home / "recipe.yaml").read_text())
    (tmp_path / "base").symlink_to(home / "second")
    found = ask("first", before=str(tmp_path))
    prints = ask("second").details["model"]["fingerprint"]
    told = {"kind": "model", "path": str(tmp_path / "base"), "fingerprint": prints}
    assert found.details["before"] == told


def test_without_a_reference_twins_stand_in_and_without_the_model_before_nothing_is_said(home, ask):
    alone = ask("first", before=str(home / "second"))
    assert alone.details["reference"]["kind"] == "stand-in"
    assert any("stand-in" in line for line in alone.details["reasons"])
    beside = ask("first", reference=str(home / "second"))
    assert not {"verdict", "before", "changes"} & beside.details.keys()
    assert "give it with --before" in evaluation_table(beside)


@pytest.mark.usefixtures("never")
@pytest.mark.parametrize("role", ["before", "reference"])
def test_a_result_of_other_records_or_settings_is_refused_before_a_model_is_asked(
    home, ask, tmp_path, role
):
    called = {"before": "the model before", "reference": "the reference"}[role]
    beside = {role: str(home / "run" / "evaluation" / f"{role}.json")}
    forget, changed = str(home / "forget.json"), tmp_path / "forget.json"
    other = rows(RECORDS)
    other[2]["answer"] = "Something else."
    write_json(changed, other)
    for words, message in (
        ([f"forget={forget}", "forget.take=3"], "has other records: 6 in the set forget, .* 3"),
        ([f"forget={changed}"], "has other records: its 6 in the set forget have other texts"),
        ([f"forget={forget}", "model.template=plain"], "was asked with template"),
        ([f"general={forget}"], "has none of the sets general"),
    ):
        with pytest.raises(WagleError, match=f"^{called} {message}"):
            ask("first", *words, **beside)


def test_a_result_whose_records_cannot_be_told_from_others_is_a_warning(ask, tmp_path, caplog):
    file, cache = tmp_path / "before.json", str(tmp_path / "answers")
    write_json(file, ask("second", cache=cache).to_json())
    ask("first", before=str(file), cache=cache)
    assert not caplog.records
    ask("first", before=str(file))
    (said,) = caplog.messages
    assert said.startswith("cannot tell whether the model before was asked about the same records")


def test_base_and_patch_need_no_folder(home, ask, tmp_path):
    extract(home / "first", home / "second", tmp_path / "p.safetensors")
    before = list(home.iterdir())
    found = ask("first", patch=[str(tmp_path / "p.safetensors")], before=str(home / "first"))
    assert values(found) == values(ask("second"))
    assert any(gap["mean"] for gap in found.details["changes"].values())
    assert list(home.iterdir()) == before


def test_a_verdict_of_another_benchmark_takes_its_result_from_a_run(home, tmp_path):
    (tmp_path / "texts").mkdir()
    write_json(tmp_path / "texts" / "train.json", [{"text": row["answer"]} for row in RECORDS])
    data = {"data": str(tmp_path / "texts"), "heldout": None, "prefixes": [4], "max_new_tokens": 4}
    recipe = {
        **yaml.safe_load((home / "recipe.yaml").read_text()),
        "evaluation": {"benchmarks": [{"name": "copyright", "label": "mine", "settings": data}]},
    }
    run = Run(tmp_path / "run", load_recipe(recipe))
    (run.folder / "evaluation").mkdir(parents=True)
    (run.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    known = wagle.evaluate(home / "second", benchmark="copyright", settings=data)
    write_json(run.folder / "evaluation" / "before-mine.json", known.to_json())
    words = [f"{key}={json.dumps(value)}" for key, value in data.items()]
    common = {"benchmark": "copyright", "before": str(run.folder)}
    found = measure_model(str(home / "first"), words, **common, reference=str(home / "third"))
    assert found.details["before"] == {
        "kind": "result",
        "path": str(run.folder / "evaluation" / "before-mine.json"),
        "fingerprint": known.details["model"]["fingerprint"],
    }
    assert found.details["verdict"]


@pytest.mark.usefixtures("never")
def test_a_model_compared_with_itself_is_refused_before_it_is_asked(home, ask):
    run = str(home / "run")
    first, model = str(home / "first"), f"{run}/model"
    for one, beside, message in (
        ("run", {"before": run, "reference": model}, "the model and the reference are the same"),
        ("run", {"before": model}, "the model and the model before are the same model"),
        ("run", {"reference": run}, "the model and the reference are the same model"),
        ("run", {"before": first, "reference": first}, "the model before and the reference are"),
        (
            "run",
            {"before": run, "reference": f"{run}/base"},
            "the model before and the reference are the same model: .*before.json .*/run/base ",
        ),
    ):
        with pytest.raises(WagleError, match=f"^{message}") as caught:
            ask(one, **beside)
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("never")
def test_a_name_with_two_meanings_is_refused_in_every_role(home, ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").symlink_to(home / "run")
    for roles in ({"before": "demo"}, {"reference": "demo"}):
        with pytest.raises(WagleError, match=r"^demo is both the bundled model and a folder"):
            ask("run", **roles)
    with pytest.raises(WagleError, match=r"^demo is both the bundled model and a folder"):
        measure_model("demo", [f"forget={home / 'forget.json'}"], benchmark="qa")


def test_figures_in_another_precision_are_paired_with_a_warning(ask, tmp_path, caplog):
    file, cache = tmp_path / "before.json", str(tmp_path / "answers")
    write_json(file, ask("second", cache=cache, precision="bfloat16").to_json())
    ask("first", before=str(file), cache=cache)
    assert caplog.messages == [
        "the model before was asked in bfloat16, this model in float32: figures differ by the "
        "rounding too"
    ]


def test_a_result_that_does_not_say_how_it_was_measured_is_paired_with_a_warning(
    ask, tmp_path, caplog
):
    file, cache = tmp_path / "before.json", str(tmp_path / "answers")
    found = ask("second", cache=cache).to_json()
    del found["data"]["settings"]["version"]
    write_json(file, found)
    ask("first", before=str(file), cache=cache)
    (said,) = caplog.messages
    assert said.startswith(
        "the model before does not say which version of the figures of qa it holds"
    )


# ---------------------------------------------------------------------------------------------
# The command


def call(capsys, *arguments):
    """The exit code of a command, and what it printed."""
    code = cli.app([*map(str, arguments)], standalone_mode=False)
    return code or 0, capsys.readouterr().out


def _known(roles):
    """The roles that are models of their own; a stand-in is asked of the model before."""
    return [role for role in roles.values() if role is not None and role["kind"] != "stand-in"]


def test_the_verdict_is_the_exit_code_and_the_json_follows_the_schema(home, capsys, monkeypatch):
    run, schema = home / "run", json.loads((ROOT / "docs" / "verdict.schema.json").read_text())
    one = ["evaluate", run, "--benchmark", "qa", f"forget={home / 'forget.json'}", QUICK]
    beside = ["--before", run, "--reference", run / "evaluation" / "reference.json"]
    seen = []
    for command in (["evaluate", run], [*one, *beside], [*one, "--before", run], one):
        code, printed = call(capsys, *command, "--json")
        told = json.loads(printed)
        jsonschema.validate(told, schema)
        assert list(told)[:4] == ["schema", "verdict", "reasons", "roles"]
        assert code == (0 if told["verdict"] is None else EXIT_CODES[told["verdict"]])
        assert call(capsys, *command, "--json", "--no-fail")[0] == 0
        seen.append((told["schema"], code))
        marks = [role["fingerprint"] for role in _known(told["roles"])]
        assert len({*marks}) == len(marks)
        assert all(len(mark) == 64 for mark in marks)
    assert seen[0] == ("wagle-run/1", seen[1][1])
    assert seen[3][1] == 0
    state = Run(run, load_recipe(run / "recipe.yaml"))
    for verdict, code in EXIT_CODES.items():
        monkeypatch.setitem(state.state["stages"]["after"], "verdict", verdict)
        monkeypatch.setattr(cli, "_execute", lambda *_, **__: state)
        assert call(capsys, "run", run)[0] == code


def test_each_role_is_printed_with_its_path_and_fingerprint(home, capsys):
    run = home / "run"
    one = ["evaluate", run, "--benchmark", "qa", f"forget={home / 'forget.json'}", QUICK]
    beside = ["--before", run / "base", "--reference", home / "first"]
    own = {
        r: read_json(run / "evaluation" / f"{r}.json")["model"]["fingerprint"][:12] for r in ROLES
    }
    for command, kinds in (([*one, *beside], ("", "")), (["evaluate", run], ("", "untaught, "))):
        _, printed = call(capsys, *command)
        for role, path, file, kind in (
            ("model", run / "model", "after", ""),
            ("before", run / "base", "before", kinds[0]),
            ("reference", home / "first", "reference", kinds[1]),
        ):
            assert f"{role:11}  {path} ({kind}{own[file]})" in printed.replace("\n" + " " * 13, " ")


def test_the_command_prints_values_differences_and_verdict(home, inside, tmp_path):
    command = ["evaluate", home / "run", "--benchmark", "qa", f"forget={home / 'forget.json'}"]
    command += [f"retain={home / 'retain.jsonl'}", QUICK, "--before", home / "run"]
    command += ["--reference", home / "run" / "evaluation" / "reference.json"]
    printed = inside(*command, "--out", tmp_path / "after.json")
    written = Evaluation.from_json(read_json(tmp_path / "after.json"))
    lines = printed.splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].split()[-3:] == ["before", "model", "reference"]
    figure = written.figures["forget"]["probability"]
    cells = f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
    assert cells in lines[1]
    start = lines.index("") + 1
    assert lines[start].split()[2:] == ["model", "-", "before", "model", "-", "reference"]
    change = written.details["changes"]["forget.probability"]
    low, high = change["interval"]
    assert f"{change['mean']:+.3f} [{low:+.3f}, {high:+.3f}]" in lines[start + 1]
    assert "verdict      " + written.details["verdict"] in printed
    assert "forget.nll" not in printed
    assert "forget.nll" in inside(*command, "--all")
    assert json.loads(inside(*command, "--json"))["changes"]["forget.probability"] == {
        **change,
        "interval": list(change["interval"]),
    }


def test_attribute_names_no_mask_where_none_is_made(home, inside, tmp_path):
    out = ["--out", tmp_path / "out"]
    words = ["finetune=null", "reference=null", "unlearning={lora: {rank: 2}, when_unknown: go}"]
    printed = inside("attribute", home / "recipe.yaml", *words, *out)
    assert printed.startswith("no mask: LoRA trains its whole adapter")
    assert not (tmp_path / "out" / "mask.safetensors").exists()

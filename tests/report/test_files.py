"""The files of a run as strangers may make them: each misfit is one line that names its part."""

from __future__ import annotations

import copy
import json

import pytest

from tests.report.attack_files import relearning, sampling
from tests.report.text.test_run import run_folder
from wagle.report.attack_findings import strongest
from wagle.report.files import (
    read_answers,
    read_attack,
    read_environment,
    read_state,
    read_summary,
)
from wagle.report.text.run import summary_table
from wagle.system.errors import WagleError
from wagle.system.files.seals import content_digest

STATE = {
    "stages": {
        "teach": {"seconds": 1.0, "taught": 3},
        "mask": {"candidates": 10, "ratios": [0.5], "score_histogram": {"0": [[None, 1], [-3, 2]]}},
        "unlearn": {
            "selected": 5,
            "changed": 4,
            "objective": {"name": "npo", "beta": 0.1},
            "landed": {
                "figure": "forget.probability",
                "value": 0.5,
                "aim": [0.4, 0.6],
                "between": [2, 4],
                "share": 0.5,
            },
        },
        "patch": {"bytes": 10, "share_of_model": 0.5},
        "deploy": {"forms": {"nf4": {"summary": {"forget": {"nll": None}}}}, "compared_with": "x"},
        "after": {"verdict": "leaks", "reasons": ["Why."]},
        "attacks": {"attacks": {"mine": "relearning"}},
        "controls": {"arms": {"random": {"summary": {}, "verdict": "leaks"}}},
    },
    "seals": {"mask": {"files": {"mask.safetensors": "00"}, "stamps": {}, "writes": ["mask.*"]}},
    "deleted": ["base/"],
}


def changed(value, path, new):
    """The value with another part; ``...`` takes it out."""
    made = copy.deepcopy(value)
    *way, last = path.split("/")
    here = made
    for key in way:
        here = here[key]
    if new is ...:
        del here[last]
    else:
        here[last] = new
    return made


def refused(read, path, value):
    text = value if isinstance(value, str) else json.dumps(value)
    path.write_text(text)
    with pytest.raises(WagleError) as caught:
        read(path)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(str(path))
    return said.removeprefix(str(path)).strip()


def sealed(state):
    return {**state, "seal": content_digest(state)}


def test_a_state_is_read_with_and_without_its_seal(tmp_path):
    for state in (STATE, {"stages": {}}):
        (tmp_path / "state.json").write_text(json.dumps(state))
        assert read_state(tmp_path / "state.json") == state
        (tmp_path / "state.json").write_text(json.dumps(sealed(state)))
        assert read_state(tmp_path / "state.json") == state
    edited = changed(sealed(STATE), "stages/teach/taught", 4)
    assert refused(read_state, tmp_path / "state.json", edited).startswith("was edited since wagle")


@pytest.mark.parametrize("text", ["[]", "null", "3", '"x"', "{}", '{"stages": []}', "", "[" * 9999])
def test_what_is_no_state_is_refused(tmp_path, text):
    assert refused(read_state, tmp_path / "state.json", text)


@pytest.mark.parametrize(
    ("path", "new", "said"),
    [
        ("stages/teach", None, "stages, teach"),
        ("stages/teach", [], "stages, teach"),
        ("stages/teach/seconds", "1", "stages, teach, seconds"),
        ("stages/teach/seconds", -1, "stages, teach, seconds"),
        ("stages/unlearn", None, "stages, unlearn"),
        ("stages/unlearn/selected", 0.5, "stages, unlearn, selected"),
        ("stages/unlearn/objective", {}, "stages, unlearn, objective, name: field required"),
        ("stages/unlearn/landed/aim", [0.4], "stages, unlearn, landed, aim"),
        ("stages/mask/candidates", "10", "stages, mask, candidates"),
        ("stages/mask/score_histogram/0", [[1]], "stages, mask, score_histogram, 0, 0"),
        ("stages/mask/ratios", 0.5, "stages, mask, ratios"),
        ("stages/deploy/forms/nf4/summary", [], "stages, deploy, forms, nf4, summary"),
        (
            "stages/after/verdict",
            "fine",
            "stages, after, verdict: input should be 'no leak",
        ),
        ("stages/after/reasons", "Why.", "stages, after, reasons"),
        ("stages/attacks/attacks", {"../../x": 1}, "stages, attacks, attacks, ../../x, [key]"),
        ("stages/controls/arms", {"..": {"summary": {}}}, "stages, controls, arms, .., [key]"),
        ("seals", [], "seals"),
        ("seals/mask/files", {"/dev/zero": "00"}, "seals, mask, files, /dev/zero, [key]"),
        ("seals/mask/files", {"../x": "00"}, "seals, mask, files, ../x, [key]"),
        ("seals/mask/files", {"x" * 5000: "00"}, "seals, mask, files, xxx"),
        ("seals/mask/writes", ["**/**/x"], "seals, mask, writes, 0"),
        ("seals/mask/writes", [""], "seals, mask, writes, 0"),
        ("seals/mask/stamps", {"x": [1]}, "seals, mask, stamps, x"),
        ("seals/mask/more", 1, "seals, mask, more"),
        ("seals/mask/read", {"../x": "00"}, "seals, mask, read, ../x, [key]"),
        ("deleted", ["../base/"], "deleted, 0"),
        ("deleted", {}, "deleted"),
        ("purged", 1, "purged"),
    ],
)
def test_a_state_with_its_right_seal_and_wrong_content_is_refused(tmp_path, path, new, said):
    found = refused(read_state, tmp_path / "state.json", sealed(changed(STATE, path, new)))
    assert found.startswith(f"was altered: {said}")
    assert found.endswith("; restore it, or run the recipe again in a new folder")


@pytest.mark.parametrize("make", [relearning, sampling])
def test_an_attack_is_read(tmp_path, make):
    (tmp_path / "x.json").write_text(json.dumps(make()))
    assert strongest(read_attack(tmp_path / "x.json")) == strongest(make())


@pytest.mark.parametrize(
    ("path", "new", "said"),
    [
        ("schema", "wagle-attack/2", "schema: input should be 'wagle-attack/1'"),
        ("attack", None, "attack"),
        ("roles", {}, "value error, roles lacks the unlearned model, after"),
        ("roles/after/states", {}, "roles, after, states"),
        ("roles/after/states", {"later": {}}, "value error, later is not a number of steps"),
        ("roles/after/states", {"step 1\n": {}}, "value error, step 1\\n is not a number of steps"),
        ("roles/after/states/step 2/forget.nll", 3, "roles, after, states, step 2, forget.nll"),
        (
            "roles/after/states/step 2/forget.nll/n",
            -1,
            "roles, after, states, step 2, forget.nll, n",
        ),
        (
            "roles/after/states/step 2/forget.nll/interval",
            [1],
            "roles, after, states, step 2, forget.nll, interval",
        ),
        ("effects/step 2/forget.nll", {"rise": 1}, "effects, step 2, forget.nll, recovered"),
        ("effects/step 2", [], "effects, step 2"),
        ("settings", "x", "settings"),
        ("codes", {"int8": {"weights": 1}}, "codes, int8, not_quantized"),
    ],
)
def test_an_attack_of_wrong_types_is_refused(tmp_path, path, new, said):
    found = refused(read_attack, tmp_path / "x.json", changed(relearning(), path, new))
    assert found.startswith(f"was altered: {said}")


@pytest.mark.parametrize("name", ["leak@", "leak@x", "leak@0", "leak@1.5", f"leak@{'9' * 99}"])
def test_a_leak_among_answers_needs_their_number(tmp_path, name):
    attack = sampling()
    figures = attack["roles"]["after"]["states"]["forget"]
    figures[name] = figures["leak@1"]
    said = refused(read_attack, tmp_path / "x.json", attack)
    assert said == f"was altered: value error, {name} is not a number of answers; restore it"


@pytest.mark.parametrize(
    ("read", "value", "said"),
    [
        (read_summary, [], "was altered: input should be a valid dictionary; restore it"),
        (read_summary, {"benchmarks": []}, "was altered: benchmarks"),
        (read_summary, {"benchmarks": {"../x": {}}}, "was altered: benchmarks, ../x, [key]"),
        (read_answers, [], "was altered: input should be a valid dictionary"),
        (read_answers, {"forget": [{"place": "x"}]}, "was altered: forget, 0, question"),
        (read_answers, {"forget": {}}, "was altered: forget"),
        (read_environment, [], "was altered: input should be a valid dictionary"),
        (read_environment, {"memory_bytes": "much"}, "was altered: memory_bytes"),
        (read_environment, {"memory_bytes": None}, "was altered: memory_bytes"),
    ],
)
def test_other_files_of_wrong_types_are_refused(tmp_path, read, value, said):
    assert refused(read, tmp_path / "x.json", value).startswith(said)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("state.json", "null"),
        ("evaluation.json", "[]"),
        ("attacks/mine.json", "{}"),
        ("evaluation/after.json", "[]"),
        ("evaluation/before.json", '{"schema": "wagle-eval/1"}'),
        ("evaluation/after.json", ""),
    ],
)
def test_a_table_names_the_file_that_does_not_fit(tmp_path, name, text):
    run = run_folder(tmp_path / "run")
    (run / name).write_text(text)
    with pytest.raises(WagleError) as caught:
        summary_table(run)
    assert str(caught.value).startswith(str(run / name))


def test_a_table_without_the_evaluation_it_is_about_names_the_file(tmp_path):
    run = run_folder(tmp_path / "run")
    (run / "evaluation" / "after.json").unlink()
    with pytest.raises(WagleError, match=r"evaluation/after\.json does not exist"):
        summary_table(run)


@pytest.mark.parametrize(
    ("stage", "key"), [("unlearn", "selected"), ("unlearn", "changed"), ("after", "verdict")]
)
def test_a_table_names_what_a_stage_does_not_say(tmp_path, stage, key):
    run = run_folder(tmp_path / "run")
    state = json.loads((run / "state.json").read_text())
    del state["stages"][stage][key]
    (run / "state.json").write_text(json.dumps(state))
    with pytest.raises(WagleError) as caught:
        summary_table(run)
    assert str(caught.value) == (
        f"state.json was altered: the stage {stage} does not say its {key}; restore it, or run the "
        "recipe again in a new folder"
    )

"""Result files that a stranger may have made: what does not fit is named in one line."""

from __future__ import annotations

import copy
import json

import pytest

from tests.evaluation.peers.test_reading import open_unlearning_log, tofu_log
from wagle.evaluation.peers.reading import read_result
from wagle.evaluation.result import Evaluation, read_evaluation
from wagle.evaluation.roles import role_text
from wagle.report.text.evaluations import evaluation_table
from wagle.system.errors import WagleError

METRIC = {
    "value": 0.5,
    "n": 2,
    "direction": "lower",
    "target": None,
    "interval": [0.4, 0.6],
    "interval_method": "bootstrap",
    "unit": "share",
    "note": None,
    "per_record": {"forget[0]": 0.4, "forget[1]": 0.6},
}
FILE = {
    "schema": "wagle-eval/1",
    "benchmark": "qa",
    "model": {"path": "m", "fingerprint": "00", "vocabulary": 400},
    "before": {"kind": "result", "path": "base", "fingerprint": "01"},
    "reference": {"kind": "untaught"},
    "probes": [["forget", "probability"]],
    "data": {"sets": {"forget": {"n": 2, "digest": "ab"}}, "salt": "c", "settings": {}},
    "changes": {"forget.probability": {"mean": 0.1, "interval": [0, 1], "p": 0.5, "n": 2}},
    "metrics": {"forget.probability": METRIC},
    "summary": {"forget": {"probability": 0.5}},
    "verdict": None,
    "reasons": [],
}


def changed(path, new):
    made = copy.deepcopy(FILE)
    *way, last = path.split("/")
    here = made
    for key in way:
        here = here[key]
    here[last] = new
    return made


def test_a_sound_file_is_read(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(FILE))
    found = read_evaluation(tmp_path / "x.json")
    assert found.to_json() == FILE
    assert read_result(tmp_path / "x.json").figures == found.figures


@pytest.mark.parametrize(
    ("path", "new", "said"),
    [
        ("benchmark", 3, "benchmark"),
        ("model", [], "model"),
        ("model/fingerprint", {}, "model, fingerprint"),
        ("model/vocabulary", "400", "model, vocabulary"),
        ("model/vocabulary", 0, "model, vocabulary"),
        ("before", "m", "before"),
        ("reference/kind", 1, "reference, kind"),
        ("before/kind", None, "before, kind"),
        ("before/patches", [1], "before, patches, 0"),
        ("probes", "forget", "probes"),
        ("probes", [["forget"]], "probes, 0"),
        ("probes", [["forget", []]], "probes, 0, 1"),
        ("data", [], "data"),
        ("data/sets/forget/n", "2", "data, sets, forget, n"),
        ("data/settings", None, "data, settings"),
        ("data/salt", 5, "data, salt"),
        ("changes", [], "changes"),
        ("changes/forget.probability", {"mean": 1}, "changes, forget.probability, interval"),
        ("changes/forget.probability/interval", [0, "1"], "changes, forget.probability, interval"),
        ("metrics", [], "metrics"),
        ("metrics/forget.probability", None, "metrics, forget.probability"),
        ("metrics/forget.probability/interval", [1], "metrics, forget.probability, interval"),
        ("metrics/forget.probability/per_record", [1], "metrics, forget.probability, per_record"),
        (
            "metrics/forget.probability/per_record/forget[0]",
            "x",
            "metrics, forget.probability, per_record, forget[0]",
        ),
        ("metrics/forget.probability/value", True, "metrics, forget.probability, value"),
        ("summary", [], "summary"),
        ("reasons", "why", "reasons"),
        ("verdict", 1, "verdict"),
    ],
)
def test_a_part_of_another_type_is_named(tmp_path, path, new, said):
    (tmp_path / "x.json").write_text(json.dumps(changed(path, new)))
    for read in (read_evaluation, read_result):
        with pytest.raises(WagleError) as caught:
            read(tmp_path / "x.json")
        found = str(caught.value)
        assert "\n" not in found
        assert found.startswith(f"{tmp_path}/x.json is a damaged wagle-eval/1 file: {said}")


@pytest.mark.parametrize("value", [[], None, 3, "x"])
def test_what_is_no_object_is_no_result(value):
    with pytest.raises(WagleError, match=r"^not a wagle-eval/1 file: it is a list or a single val"):
        Evaluation.from_json(value)


def test_a_schema_of_any_length_is_one_short_line():
    with pytest.raises(WagleError) as caught:
        Evaluation.from_json({"schema": "x\n" * 5000})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("log", [tofu_log, open_unlearning_log])
def test_logs_of_others_with_anything_in_any_place_are_read_or_refused(tmp_path, log):
    """Every top entry, and what stands below it, replaced by each kind of value."""
    messages = []
    for name, entry in log().items():
        for inner in [None, *(entry if isinstance(entry, dict) else ())]:
            for odd in (None, [], {}, "x", 3, [{}], {"0": []}, True):
                data = log()
                if inner is None:
                    data[name] = odd
                else:
                    data[name][inner] = odd
                (tmp_path / "x.json").write_text(json.dumps(data))
                try:
                    read_result(tmp_path / "x.json")
                except WagleError as error:
                    messages.append(str(error))
    assert len(messages) > 50
    assert not any("\n" in said for said in messages)


def test_a_verdict_without_reasons_is_shown(tmp_path):
    """Found by bench.fuzz: result:908."""
    del (data := changed("verdict", "leaks"))["reasons"]
    (tmp_path / "x.json").write_text(json.dumps(data))
    assert "leaks" in evaluation_table(read_result(tmp_path / "x.json"))


def test_names_from_a_file_stay_in_one_line():
    entry = {"path": "a\nb", "kind": "of\nit", "fingerprint": "0\n1", "patches": ["x\ny"]}
    assert role_text(entry) == "a\\nb with x\\ny (of\\nit, 0\\n1)"

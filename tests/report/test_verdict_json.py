"""The JSON that scripts read, its schema, and exit codes."""

from __future__ import annotations

import typing

import pytest
from pydantic import ValidationError

from tests.report.text.test_run import run_folder
from wagle.evaluation import verdict
from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.report.verdict_json import (
    EXIT_CODES,
    EvaluationJson,
    RunJson,
    Word,
    evaluation_json,
    exit_code,
    run_json,
    verdict_schema,
)

ROLE = {"path": "base", "fingerprint": "ab" * 32, "kind": "model"}


def test_every_verdict_has_an_exit_code_and_none_is_0():
    words = {verdict.NO_LEAK, verdict.LEAKS, verdict.OVER, verdict.INCONCLUSIVE, "damaged"}
    assert words == set(EXIT_CODES) == set(typing.get_args(Word))
    codes = (verdict.NO_LEAK, verdict.LEAKS, "damaged", verdict.OVER, verdict.INCONCLUSIVE, None)
    assert [exit_code(word) for word in codes] == [0, 1, 1, 1, 3, 0]


def test_a_run_tells_its_verdict_and_roles_first_and_keeps_what_it_told(tmp_path):
    roles = {"model": ROLE, "before": ROLE, "reference": None}
    found = run_json(run_folder(tmp_path), roles)
    assert list(found)[:4] == ["schema", "verdict", "reasons", "roles"]
    assert (found["schema"], found["verdict"]) == ("wagle-run/1", "inconclusive")
    assert found["reasons"] == ["There is no reference."]
    assert found["roles"] == roles
    assert {"evaluation", "stages", "differences", "attacks"} <= set(found)
    RunJson.model_validate(found)


def test_an_evaluation_tells_them_too_even_without_a_verdict():
    figures = {"forget": {"know": Figure(0.5, (0.4, 0.6), "none")}}
    plain = Evaluation(figures, details={"benchmark": "qa", "model": {**ROLE, "dtype": "float32"}})
    found = evaluation_json(plain)
    assert list(found)[:4] == ["schema", "verdict", "reasons", "roles"]
    assert (found["schema"], found["verdict"], found["reasons"]) == ("wagle-eval/1", None, [])
    assert found["roles"] == {"model": ROLE, "before": None, "reference": None}
    assert plain.to_json().items() <= found.items()
    again = Evaluation.from_json(found)
    assert again.summary() == plain.summary()
    judged = {**plain.details, "verdict": "leaks", "reasons": ["because"], "before": ROLE}
    found = evaluation_json(Evaluation(figures, details=judged))
    assert (found["verdict"], found["reasons"]) == ("leaks", ["because"])
    assert found["roles"]["before"] == ROLE


def test_what_does_not_fit_the_schema_is_never_printed():
    bare = {"schema": "wagle-eval/1", "verdict": "fine", "reasons": [], "roles": {"model": ROLE}}
    with pytest.raises(ValidationError):
        EvaluationJson.model_validate(bare)


def test_the_schema_is_of_both_kinds_and_demands_what_stands_at_the_top():
    made = verdict_schema()
    assert set(made["discriminator"]["mapping"]) == {"wagle-eval/1", "wagle-run/1"}
    for name in ("EvaluationJson", "RunJson"):
        kind = made["$defs"][name]
        assert {"schema", "verdict", "reasons", "roles"} <= set(kind["required"])
    assert "damaged" in str(made["$defs"]["RunJson"]["properties"]["verdict"])

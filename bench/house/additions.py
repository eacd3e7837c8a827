"""One of each kind to add, as a reader of CONTRIBUTING.md would write it: plain data.

To add a kind, add its example to ADDITIONS. ``bench.house.trying`` tries it on a copy of the
repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class New(NamedTuple):
    """A file to write."""

    path: str
    text: str


class Edit(NamedTuple):
    """Lines to insert into a file, before the only occurrence of ``at``."""

    path: str
    at: str
    text: str


@dataclass(frozen=True)
class Addition:
    """A new member of a kind.

    Attributes:
        kind: its kind.
        most: how many files it may touch, including its test.
        name: of the new member.
        steps: what is written, the test last.
        checks: lists of arguments for pytest in the copy: the member is in its table, works, and
            passes the tests of every member.
    """

    kind: str
    most: int
    name: str
    steps: Sequence[New | Edit]
    checks: Sequence[Sequence[str]]


_FAMILY = "src/wagle/unlearning/objectives/ascent.py"
OBJECTIVE = Addition(
    "objective",
    2,
    "hinge",
    [
        Edit(
            _FAMILY,
            "ASCENT: dict",
            '''def hinge(forget: Scored, *, limit: float = 5.0) -> Tensor:
    """Ascent that stops at a limit: ``max(0, limit - M_f)`` per forget record.

    Args:
        forget: B_f records under the trained model; ``nll_mean`` is (B_f,) float32, in nats.
        limit: > 0, in nats; a record that reaches it no longer has a gradient.
    """
    return (limit - forget.nll_mean).clamp(min=0)


''',
        ),
        Edit(_FAMILY, '    "satimp": Objective(', '    "hinge": Objective(hinge),\n'),
        New(
            "tests/unlearning/objectives/test_hinge.py",
            '''"""The objective ``hinge``."""

import torch

from tests.unlearning.objectives.made import scored
from wagle.unlearning.objectives.table import OBJECTIVES


def test_hinge_falls_until_its_limit_and_rests_there():
    found = OBJECTIVES["hinge"].function(scored(20.0, 90.0, count=10), limit=5.0)
    torch.testing.assert_close(found.detach(), torch.tensor([3.0, 0.0]))
''',
        ),
    ],
    [["tests/unlearning/objectives"]],
)

_SCORES = "src/wagle/attribution/scoring/scores.py"
SCORE = Addition(
    "score",
    2,
    "small",
    [
        Edit(
            _SCORES,
            "SCORES: dict",
            '''def small(weight: Tensor) -> Tensor:
    """``-|theta|``: small weights first. A control that sees no data. Any shape, float32."""
    return -weight.abs()


''',
        ),
        Edit(_SCORES, '    "snip_forget": Score(', '    "small": Score(small),\n'),
        Edit(
            "tests/attribution/scoring/test_scores.py",
            '    "random": 0.125,\n',
            '    "small": -2.0,\n',
        ),
    ],
    [["tests/attribution/scoring/test_scores.py"]],
)

_LIKELIHOODS = "src/wagle/metrics/likelihood.py"
METRIC = Addition(
    "metric",
    2,
    "doubt",
    [
        Edit(
            _LIKELIHOODS,
            "LIKELIHOODS: dict",
            '''def doubt(mean_nll: float) -> float:
    """``1 - exp(-M)``: how far from certain the model is, per token.

    Args:
        mean_nll: M of the right answer, in nats.
    """
    return -math.expm1(-mean_nll)


''',
        ),
        Edit(
            _LIKELIHOODS,
            '    "nll": Metric(',
            '    "doubt": Metric("probability per token", doubt, ("right",), kept="lower"),\n',
        ),
        New(
            "tests/metrics/test_doubt.py",
            '''"""The metric ``doubt``."""

import math

import pytest

from wagle.metrics.metric import Answered
from wagle.metrics.table import METRICS


def test_between_two_equal_tokens_the_doubt_is_one_half():
    assert METRICS["doubt"].value(Answered(right=math.log(2))) == pytest.approx(0.5)
''',
        ),
    ],
    [["tests/metrics"], ["tests/evaluation/test_result.py"]],
)

BENCHMARK = Addition(
    "benchmark",
    2,
    "recital",
    [
        New(
            "src/wagle/evaluation/benchmarks/recital.py",
            '''"""The benchmark ``recital``: how likely are lines that the model should not know?

``VERSION`` is raised with every new definition.
"""

from __future__ import annotations

from pathlib import Path

from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import Answers, likelihood
from wagle.evaluation.figures import Measured, Task, mean_figure
from wagle.metrics.likelihood import probability

VERSION = 1


def recital(encoder: Encoder, *, data: str | Path, seed: int = 0) -> Task:
    """Ask how likely each line is.

    Args:
        encoder: of the model.
        data: a file of texts.
        seed: of the interval.
    """
    records = read_records(data, name="lines", seed=seed)
    asked = {r.place: likelihood(t) for r, t in zip(records, encoder.encode(records), strict=True)}

    def measure(answers: Answers) -> Measured:
        found = {p: probability(answers.likelihood(one).mean) for p, one in asked.items()}
        figure = mean_figure(found, unit="probability per token", seed=seed)
        return Measured({"lines": {"probability": figure}})

    return Task([*asked.values()], measure, settings={"version": VERSION})
''',
        ),
        New(
            "tests/evaluation/benchmarks/test_recital.py",
            '''"""The benchmark ``recital``."""

from tests.conftest import make_model, make_tokenizer
from wagle.data.tokens import Encoder
from wagle.evaluation.models import Way
from wagle.evaluation.table import BENCHMARKS, make_task


def test_every_line_has_a_probability(tmp_path):
    assert "recital" in BENCHMARKS
    data, encoder = tmp_path / "lines.jsonl", Encoder(make_tokenizer())
    data.write_text('{"text": "Rain fell."}\\n{"text": "Snow fell on Oslo."}\\n')
    task = make_task("recital", encoder, {"data": str(data)})
    figure = Way(encoder).ask(make_model("llama-tied"), task).figures["lines"]["probability"]
    assert figure.n == 2
    assert 0 < figure.value < 1
''',
        ),
    ],
    [
        ["tests/evaluation/benchmarks/test_recital.py"],
        ["tests/evaluation/test_table.py", "-k", "recital"],
    ],
)

_READING = "src/wagle/data/reading.py"
DATA_FORMAT = Addition(
    "data format",
    2,
    ".tsv",
    [
        Edit(
            _READING,
            "READERS: dict",
            '''def _tab_rows(path: Path) -> Read:
    """Tab-separated cells, under a header."""
    text = io.StringIO(read_text(path, LARGEST), newline="")
    reader = csv.DictReader(text, delimiter="\\t")
    yield from ((reader.line_num, row) for row in reader)


''',
        ),
        Edit(_READING, '    ".csv": _csv_rows,\n', '    ".tsv": _tab_rows,\n'),
        New(
            "tests/data/test_tab_rows.py",
            '''"""The data format ``.tsv``."""

from wagle.data.reading import read_records


def test_cells_between_tabs_are_fields(tmp_path):
    (tmp_path / "some.tsv").write_text("question\\tanswer\\nWho?\\tAda, of Oslo.\\n")
    (record,) = read_records(tmp_path / "some.tsv")
    assert (record.prompt, record.answer) == ("Who?", "Ada, of Oslo.")
''',
        ),
    ],
    [["tests/data"]],
)

ATTACK = Addition(
    "attack",
    2,
    "shouting",
    [
        New(
            "src/wagle/attacks/kinds/shouting.py",
            '''"""Shouting: does a question in capitals bring back what the plain one no longer does?"""

from __future__ import annotations

from dataclasses import replace

from wagle.attacks.parts import ask_once, those_that_ask
from wagle.attacks.shapes import Scene, Trial
from wagle.evaluation.tasks.questions import qa


def shouting(scene: Scene, *, mark: str = "!") -> Trial:
    """Ask every forget question in capitals.

    Args:
        scene: its forget set.
        mark: what ends a question.
    """
    plain = those_that_ask(scene.need("forget", "shouting"), "shouting", ("qa",))
    loud = [replace(record, prompt=record.prompt.upper() + mark) for record in plain]
    sets = {"plain": plain, "shouted": loud}
    task = qa(scene.way.encoder, sets=sets, generate=False, seed=scene.seed)
    return ask_once(scene, task, start="plain")
''',
        ),
        New(
            "tests/attacks/kinds/test_shouting.py",
            '''"""The attack ``shouting``."""

from tests.conftest import RECORDS, make_model, make_tokenizer
from wagle.attacks.shapes import Scene
from wagle.attacks.table import make_attack
from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.evaluation.models import Way

SMALL = {"mark": "!!"}  # settings that keep the attack short
STATES, START = ["plain", "shouted"], "plain"


def test_the_question_is_asked_in_capitals():
    records = read_records(RECORDS, name="forget")
    scene = Scene(Way(Encoder(make_tokenizer())), {"forget": records})
    found = make_attack("shouting", scene, SMALL)(make_model("llama-tied")).states
    assert found["plain"]["probability"].n == found["shouted"]["probability"].n == len(records)
    assert found["plain"]["probability"].value != found["shouted"]["probability"].value
''',
        ),
    ],
    [["tests/attacks/kinds/test_shouting.py"], ["tests/attacks/test_table.py", "-k", "shouting"]],
)

STAGE = Addition(
    "stage",
    3,
    "weigh",
    [
        New(
            "src/wagle/run/stages/measuring/weigh.py",
            '''"""The stage ``weigh``: how large is the unlearned model on disk?"""

from __future__ import annotations

from typing import Any

from wagle.run.opening import Run


def weigh(run: Run) -> dict[str, Any]:
    """Count the bytes of the weights."""
    files = (run.folder / "model").glob("*.safetensors")
    return {"bytes": sum(file.stat().st_size for file in files)}
''',
        ),
        Edit(
            "src/wagle/run/stages/table.py",
            '    Stage("ledger", ',
            '    Stage("weigh", "measuring", ("unlearn",)),\n',
        ),
        New(
            "tests/run/test_weigh.py",
            '''"""The stage ``weigh``."""

from types import SimpleNamespace

from wagle.run.stages.table import STAGES


def test_the_weights_are_counted_in_bytes(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"12345")
    (tmp_path / "model" / "config.json").write_text("{}")
    assert STAGES["weigh"](SimpleNamespace(folder=tmp_path)) == {"bytes": 5}
''',
        ),
    ],
    [["tests/run/test_weigh.py", "tests/run/test_table.py"]],
)

SECTION = Addition(
    "report section",
    2,
    "durations",
    [
        New(
            "src/wagle/report/html/sections/durations.py",
            '''"""The section of durations: where a run's time went."""

from __future__ import annotations

from wagle.report.html.page import Page
from wagle.report.html.section import Section, table_section


def durations(page: Page) -> Section | None:
    """A row for every stage that took time; no section if none did."""
    rows = [(name, found["seconds"]) for name, found in page.state.items() if "seconds" in found]
    if not rows:
        return None
    lead, heads = "How long each stage took.", ("stage", "seconds")
    return table_section("durations", "Durations", 95, lead=lead, heads=heads, rows=rows)
''',
        ),
        New(
            "tests/report/html/sections/test_durations.py",
            '''"""The section of durations."""

from types import SimpleNamespace

from wagle.report.html.sections import SECTIONS
from wagle.report.html.sections.durations import durations


def test_every_stage_has_its_seconds():
    assert "durations" in SECTIONS
    page = SimpleNamespace(state={"teach": {"seconds": 1.5}, "patch": {"changed": 3}})
    assert durations(page).context["rows"] == [("teach", 1.5)]
    assert durations(SimpleNamespace(state={})) is None
''',
        ),
    ],
    [["tests/report/html"]],
)

ADDITIONS = (OBJECTIVE, SCORE, METRIC, BENCHMARK, DATA_FORMAT, ATTACK, STAGE, SECTION)

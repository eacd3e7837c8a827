"""Pages of a run, whole and bare, and what a reader sees of them."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from tests.report.attack_files import figure as attack_figure
from tests.report.attack_files import relearning, sampling
from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import INCONCLUSIVE, NO_LEAK
from wagle.metrics.table import METRICS
from wagle.recipe.reading import dump_recipe, load_recipe
from wagle.report.html.page import Page

EVIL = "<script>alert('x')</script> \"quoted\" & 'single'"


FINGERPRINT = "0123456789abcdef" * 4


RECIPE = {
    "name": "trial",
    "seed": 5,
    "model": "/home/alice/models/tiny-llama",
    "reference": "untaught",
    "forget": "/home/alice/private place/people.jsonl",
    "retain": {"source": "demo:retain", "take": "10%"},
    "general": "demo:general",
    "finetune": {},
    "attribution": {"ratio": 0.3},
    "unlearning": {"objective_settings": {"retain_weight": 10.0}},
}


def figure(value: float, count: int = 4) -> Figure:
    low, high = max(0.0, value - 0.05), min(1.0, value + 0.05)
    return Figure(value, (low, high), "bootstrap", {f"forget[{i}]": value for i in range(count)})


def evaluation(forget: float, kept: float) -> Evaluation:
    figures = {
        "forget": {metric: figure(forget) for metric in METRICS},
        "retain": {metric: figure(kept) for metric in METRICS if metric != "paraphrased"},
        "general": {"probability": figure(kept)},
    }
    counts = {"forget": 4, "retain": 1234, "general": 4}
    details = {
        "model": {"path": "/home/alice/runs/x/model", "fingerprint": FINGERPRINT},
        "data": {"sets": {name: {"n": n, "digest": "keyed"} for name, n in counts.items()}},
    }
    return Evaluation(figures, details=details)


def answers(said: str, finished: bool = True) -> list[dict[str, Any]]:
    words = {"question": f"Who? {EVIL}", "expected": f"Nobody {EVIL}"}
    return [{"place": "forget[0]", **words, "said": said, "finished": finished}]


def full() -> Page:
    recipe = load_recipe(RECIPE)
    stage = {"seconds": 1.5, "peak_bytes": 2_500_000_000}
    state = {
        "teach": {**stage, "taught": 8, "steps": 3},
        "mask": {
            **stage,
            "score": "wagle",
            "settings": {"gamma": 0.25},
            "ratios": [0.3],
            "counts": [3000],
            "candidates": 10_001,
        },
        "unlearn": {
            **stage,
            "selected": 3000,
            "changed": 2999,
            "steps": 3,
            "stopped": "forget.probability <= reference",
            "objective": {"name": "npo", "beta": 0.1, "retain_weight": 10.0},
        },
        "patch": {
            **stage,
            "changed": 2999,
            "total": 10_001,
            "outside_mask": 0,
            "bytes": 12_345,
            "share_of_model": 0.31,
        },
        "after": {**stage, "seconds": 75.0, "verdict": NO_LEAK, "reasons": ["All is well."]},
    }
    history = [
        {"step": i, "forget_nll": i / 2, "retain_nll": 0.1, "forget.probability": 1 / i}
        for i in (1, 2, 3)
    ]
    return Page(
        recipe=recipe,
        recipe_text=dump_recipe(recipe),
        state=state,
        evaluations={
            "before": evaluation(0.9, 0.8),
            "after": evaluation(0.2, 0.6),
            "reference": evaluation(0.21, 0.5),
        },
        history=history,
        teaching=[{"step": i, "retain_nll": 1 / i} for i in (1, 2, 3)],
        warnings=[f"a warning {EVIL}"],
        density={
            "block": {"embed.weight": (10, 100), "0": (20, 100), "1": (60, 100)},
            "kind": {"embed.weight": (10, 100), "mlp.up_proj.weight": (80, 200)},
        },
        answers={"before": answers(f"Nobody {EVIL}"), "after": answers(EVIL, finished=False)},
        environment={"wagle": "0.1.0", "memory_bytes": 8e9, "argv": ["run", "secret-argument"]},
    )


def bare() -> Page:
    recipe = load_recipe({"name": "bare", "model": "demo", "forget": "demo:forget"})
    after = {"verdict": INCONCLUSIVE, "reasons": ["There is no reference."]}
    return Page(recipe, "name: bare\n", {"after": after}, {}, [], [], [], {}, {}, {})


def with_after(page: Page, **changes: Any) -> Page:
    return replace(page, state={**page.state, "after": {**page.state["after"], **changes}})


def with_more(page: Page) -> Page:
    """The page with a benchmark, attacks and a forget quality; all of them hold what is evil."""
    asked = {"benchmarks": [{"name": "tofu", "settings": {"data": f"/srv/alice/x {EVIL}"}}]}
    probe = {"name": "probe", "settings": {"groups": {"forget[0]": "a private name"}}}
    recipe = load_recipe({**RECIPE, "evaluation": asked, "attacks": [probe]})
    p_value = Figure(3.2e-9, None, "none", direction="higher", unit="p", count=80)
    lost = Figure(None, None, "none", target=0, unit="per cent", note=f"no holdout {EVIL}")
    sets = {
        "forget": {"know": figure(0.4), f"nll {EVIL}": figure(0.7)},
        "overall": {"forget_quality": p_value, "privleak": lost},
    }
    before = replace(page.evaluations["before"])
    before.figures["overall"] = {"forget_quality": p_value}
    attack = relearning()
    attack["settings"] = {"records": EVIL, "groups": {"forget[0]": "a private name"}}
    attack["roles"]["after"]["states"]["step 2"]["forget.probability"] = attack_figure(0.2, EVIL)
    return replace(
        page,
        recipe=recipe,
        benchmarks={"tofu": {role: Evaluation(sets) for role in ("before", "after")}},
        attacks={"relearning": attack, "sampling": sampling()},
    )


class Tags(HTMLParser):
    """All tags with their attributes, and the names still open at the end."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)


def text(html: str) -> str:
    """What a reader sees of a page, in one line."""
    body = html[html.index("<body>") :]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def part(html: str, name: str) -> str:
    """A section of the page."""
    return html[html.index(f'<section id="{name}">') :].split("</section>")[0]


def opacities(svg: str) -> list[float]:
    """Of the cells of a heat map, in document order: by block, then by kind."""
    rects = re.findall(r"<path[^>]*var\(--heat\)[^>]*>", svg)
    return [float(re.search(r'opacity="([\d.]+)"', rect)[1]) for rect in rects]

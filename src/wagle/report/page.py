"""What a report shows, and the one page that shows it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from wagle.evaluation.figures import FORGOTTEN, SETS, Figure
from wagle.evaluation.metrics.catalogue import METRICS, NATS
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import INCONCLUSIVE, LEAKS, NO_LEAK, OVER, PROBES
from wagle.files import write_text
from wagle.model import place
from wagle.recipe import Recipe
from wagle.report.charts import (
    HEAT,
    POINTS,
    density_chart,
    heat_chart,
    lines_chart,
    points_chart,
    scores_chart,
    top,
)
from wagle.report.templates import templates
from wagle.unlearning.rules import REACHED

ROLES = ("before", "after", "reference")
_KINDS = {NO_LEAK: "clear", LEAKS: "leak", OVER: "over", INCONCLUSIVE: "open"}  # CSS classes
_MEANINGS = {
    NO_LEAK: "These probes find no more of the forget set than in a model that never learned it.",
    LEAKS: "At least one probe finds more of the forget set than in a model that never learned it.",
    OVER: "The model is worse on the forget set than a model that never learned it: the damage goes "
    "too far, and itself tells that something was removed.",
    INCONCLUSIVE: "These probes cannot tell whether the forget set is gone.",
}
_SETS = {
    "forget": "must go",
    "retain": "must stay; used while unlearning",
    "retain_heldout": "must stay; unlearning never saw it",
    "general": "general knowledge; unlearning never saw it",
}


@dataclass(frozen=True)
class Page:
    """All that a report shows, as plain data: nothing here reads a run folder.

    Attributes:
        recipe: what was asked.
        recipe_text: the resolved recipe as YAML.
        state: per finished stage, its seconds, peak memory and results.
        evaluations: by role: ``before``, ``after``, ``reference`` (the last may be missing).
        history: the figures of every unlearning step.
        teaching: the figures of every teaching step, if the model was taught here.
        warnings: what the run warned about.
        density: per ``block``, ``kind`` of module and ``parameter``, (selected, weights).
        answers: by role, question/expected/said of some forget records; empty unless asked for.
        environment: versions and machine.
    """

    recipe: Recipe
    recipe_text: str
    state: Mapping[str, Mapping[str, Any]]
    evaluations: Mapping[str, Evaluation]
    history: list[dict[str, Any]]
    teaching: list[dict[str, Any]]
    warnings: list[str]
    density: Mapping[str, Mapping[str, tuple[int, int]]]
    answers: Mapping[str, list[dict[str, Any]]]
    environment: Mapping[str, Any]


def write_report(page: Page, path: Path) -> None:
    """Write the page as one HTML file that opens without network."""
    write_text(path, render(page))


def render(page: Page) -> str:
    """The page as HTML; every text from a model or a record is escaped."""
    environment = templates()
    environment.filters |= {
        "number": _number,
        "count": "{:,}".format,
        "percent": _percent,
        "duration": _duration,
        "bytes": _bytes,
    }
    short = _Shortener(page.recipe)
    return environment.get_template("page.html.j2").render(
        name=page.recipe.name,
        recipe=page.recipe,
        verdict=_verdict(page),
        warnings=[short(line) for line in page.warnings],
        tiles=_tiles(page),
        asked=_asked(page),
        sets=_sets(page),
        forget=_rows(page, "forget"),
        kept={name: _rows(page, name) for name in _kept(page)},
        gone={FORGOTTEN: _rows(page, FORGOTTEN)} if FORGOTTEN in _measured(page) else {},
        roles=[role for role in ROLES if role in page.evaluations],
        weights=_weights(page),
        heat=_heat(page),
        scores=_scores(page),
        training=_training(page),
        pairs=_pairs(page.answers),
        recipe_text=short(page.recipe_text),
        shortened=short(page.recipe_text) != page.recipe_text,
        stages=[(name, found) for name, found in page.state.items() if "seconds" in found],
        environment={
            key: _bytes(value) if key.endswith("_bytes") else short(str(value))
            for key, value in page.environment.items()
            if key != "argv"
        },
    )


# ---------------------------------------------------------------------------------------------
# Numbers and names as the page shows them


def _number(value: float) -> str:
    """Three decimals; what they would round away is not called zero."""
    if 0 < abs(value) < 0.0005:
        return "< 0.001" if value > 0 else "> -0.001"
    return f"{value:,.3f}"


def _percent(share: float) -> str:
    if share == 1:
        return "100 %"
    return f"{100 * share:.2g} %" if share < 0.01 else f"{100 * share:.1f} %"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def _bytes(size: float) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:,.2f} {unit}"
    return f"{size:,.0f} B"


def _last(path: str) -> str:
    """The last part of a path: where a model lies is nobody's business."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or path


class _Shortener:
    """Cuts absolute paths in a text to ``…/NAME``: those of the recipe, and what looks like one."""

    _looks = re.compile(r"(?<![\w.~:/\\-])(?:~|[A-Za-z]:)?(?:[\\/][^\s'\"\\/<>,;:()\[\]{}]+){2,}")

    def __init__(self, recipe: Recipe) -> None:
        found = [
            recipe.model.path,
            recipe.model.adapter,
            recipe.after,
            recipe.reference,
            recipe.attribution.mask,
        ]
        sets = [recipe.forget, recipe.retain, recipe.retain_heldout, recipe.general]
        sets.append(recipe.finetune.records if recipe.finetune else None)
        for asked in sets:
            if asked is not None:
                found += [asked.source] if isinstance(asked.source, str) else asked.source
        absolute = {path for path in found if path and re.match(r"[\\/~]|[A-Za-z]:[\\/]", path)}
        self.paths = sorted(absolute, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for path in self.paths:
            text = text.replace(path, f"…/{_last(path)}")
        return self._looks.sub(lambda found: f"…/{_last(found[0])}", text)


# ---------------------------------------------------------------------------------------------
# What each section shows


def _verdict(page: Page) -> dict[str, Any]:
    found = page.state.get("after", {})
    word = found.get("verdict", INCONCLUSIVE)
    return {
        "word": word,
        "kind": _KINDS.get(word, "open"),
        "meaning": _MEANINGS.get(word, ""),
        "reasons": found.get("reasons", ["The run has no verdict."]),
    }


def _measured(page: Page) -> list[str]:
    """The sets that any evaluation has figures of."""
    names = [name for found in page.evaluations.values() for name in found.figures]
    return [*dict.fromkeys([name for name in SETS if name in names] + names)]


def _kept(page: Page) -> list[str]:
    """The sets that must stay."""
    return [name for name in _measured(page) if name not in ("forget", FORGOTTEN)]


def _figure(page: Page, role: str, name: str, metric: str) -> Figure | None:
    found = page.evaluations.get(role)
    return found.figures.get(name, {}).get(metric) if found else None


def _rows(page: Page, name: str) -> dict[str, Any]:
    """A table of a set and its chart; the forget set has a row for what was not measured, too."""
    count = _count(page, name)
    figures = {
        metric: {role: f for role in ROLES if (f := _figure(page, role, name, metric))}
        for metric in METRICS
    }
    rows = [
        {
            "metric": metric,
            "unit": METRICS[metric].unit,
            "n": _other_count(found, count),
            "counts": metric in PROBES,
            "figures": found,
            "against": _against(found.get("after"), found.get("reference")),
            "ratio": _ratio(found),
        }
        for metric, found in figures.items()
        if found or name == "forget"
    ]
    shown = ROLES if name == "forget" else ("before", "after")
    points = {
        metric: {role: found[role] for role in shown if role in found}
        for metric, found in figures.items()
        if METRICS[metric].unit != NATS  # the chart goes from 0 to 1
    }
    chart = points_chart(points, f"{name}: figures with intervals, {', '.join(shown)}")
    return {"rows": rows, "chart": chart, "count": count}


def _other_count(found: Mapping[str, Figure], records: int | None) -> str:
    """Of how many a figure is the mean, where that is not the set's number of records.

    Some records lack what a metric needs, and a long text counts once a window.
    """
    counts = sorted({figure.n for figure in found.values()})
    return "" if counts in ([], [records]) else " or ".join(f"{count:,}" for count in counts)


def _against(after: Figure | None, reference: Figure | None) -> str:
    """Where the figure after lies, seen from the reference's interval."""
    if after is None or reference is None:
        return ""
    if after.number > reference.high:
        return "above"
    return "below" if after.number < reference.low else "inside"


def _ratio(found: Mapping[str, Figure]) -> float | None:
    before, after = found.get("before"), found.get("after")
    return after.number / before.number if before and after and before.value else None


def _count(page: Page, name: str) -> int | None:
    """How many records a set has: as the run counted them, else as the figures do."""
    for found in page.evaluations.values():
        counted = found.details.get("data", {}).get(name, {}).get("n")
        if counted is not None:
            return int(counted)
    counts = [f.n for e in page.evaluations.values() for f in e.figures.get(name, {}).values()]
    return max(counts, default=None)


def _tiles(page: Page) -> dict[str, Any]:
    """Probability at a glance: of the forget set by role, of the kept sets after over before."""
    kept = {
        name: ratio
        for name in _kept(page)
        if (ratio := _ratio({r: f for r in ROLES if (f := _figure(page, r, name, "probability"))}))
    }
    forget = {role: _figure(page, role, "forget", "probability") for role in ROLES}
    return {"forget": forget, "kept": kept}


def _sets(page: Page) -> list[dict[str, Any]]:
    """The sets of the recipe: their role, their source and how many records they have."""
    found = []
    for name in SETS:
        asked = getattr(page.recipe, name)
        if asked is not None:
            sources = [asked.source] if isinstance(asked.source, str) else asked.source
            cut = [f"{key} {v}" for key in ("split", "rows") if (v := getattr(asked, key))]
            cut += [f"take {asked.take}"] if asked.take != "all" else []
            source = ", ".join([" + ".join(_last(one) for one in sources), *cut])
            found.append(
                {"name": name, "role": _SETS[name], "source": source, "n": _count(page, name)}
            )
    return found


def _asked(page: Page) -> dict[str, str]:
    """What the recipe asked for, as terms and what they were."""
    recipe, training = page.recipe, page.recipe.unlearning
    unlearned = page.state.get("unlearn", {})
    objective = unlearned.get("objective") or {
        "name": training.objective,
        **training.objective_settings,
    }
    length = (
        f"{training.epochs} epochs" if training.max_steps is None else f"{training.max_steps} steps"
    )
    records = training.batch_size * training.accumulation
    return {
        "Model": _model(recipe),
        "Reference": _reference(recipe),
        "Objective": _settings(
            objective["name"], {k: v for k, v in objective.items() if k != "name"}
        ),
        "Training": f"{length}, {records} records a step, {training.optimizer}, learning rate "
        f"{training.learning_rate:g} ({training.schedule}), {training.precision}",
        **_selection(page),
        "Stop rule": _stop(page),
        "Seed": str(recipe.seed),
    }


def _settings(name: str, settings: Mapping[str, Any]) -> str:
    shown = [f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in settings.items()]
    return f"{name} ({', '.join(shown)})" if shown else name


def _model(recipe: Recipe) -> str:
    name = _last(recipe.model.path)
    if recipe.after is not None:
        name = f"what {_last(recipe.after)} left"
    if recipe.model.adapter is not None:
        name += f" with the adapter {_last(recipe.model.adapter)}"
    return f"{name}, {recipe.model.dtype}"


def _reference(recipe: Recipe) -> str:
    if recipe.reference is None:
        return "none: without a model that never learned the forget set, nothing can be concluded"
    if recipe.reference == "untaught":
        return "untaught: the model before it was taught"
    return f"{_last(recipe.reference)}: a model that never learned the forget set"


def _selection(page: Page) -> dict[str, str]:
    """What trains: a share of the weights by a score, or an adapter."""
    chosen = {"Score": _score(page), "Ratio": _shown_ratio(page)}
    lora = page.recipe.unlearning.lora
    if lora is None:
        return chosen
    targets = lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)
    text = f"LoRA of rank {lora.rank}, alpha {lora.alpha}, beside {targets}"
    if lora.quantize != "none":
        text += f", trained over a base in {lora.quantize}"
    return {"Adapter": text + ", then merged", **(chosen if lora.masked else {})}


def _score(page: Page) -> str:
    asked, mask = page.recipe.attribution, page.state.get("mask", {})
    text = _settings(mask.get("score", asked.score), mask.get("settings", {}))
    if asked.mask is not None:
        return f"{text}, from the mask {_last(asked.mask)}"
    if isinstance(asked.gamma, float) or "gamma" not in mask.get("settings", {}):
        return text
    given = (
        asked.gamma
        if isinstance(asked.gamma, str)
        else _settings("", {str(k): v for k, v in asked.gamma.items()}).strip(" ()")
    )
    return f"{text}, gamma chosen by {given}"


def _chosen_ratio(page: Page) -> float | None:
    """The ratio that was trained, if it can be told."""
    asked = page.recipe.attribution
    ratios = page.state.get("mask", {}).get("ratios")
    if ratios is None and asked.mask is None:
        ratios = asked.ratio if isinstance(asked.ratio, list) else [asked.ratio]
    return asked.use or (ratios[0] if ratios and len(ratios) == 1 else None)


def _shown_ratio(page: Page) -> str:
    ratio, ladder = _chosen_ratio(page), page.state.get("mask", {}).get("ratios", [])
    text = "that of the mask" if ratio is None else f"{ratio:g} of the candidate weights"
    return text + (
        f", of the ladder {', '.join(f'{r:g}' for r in ladder)}" if len(ladder) > 1 else ""
    )


def _stop(page: Page) -> str:
    training, found = page.recipe.unlearning, page.state.get("unlearn", {})
    text = "the end of training"
    if training.stop_when == "auto" and page.recipe.reference is not None:
        goal = _figure(page, "reference", "forget", "probability")
        value = f" ({_number(goal.number)})" if goal else ""
        text = f"when the forget probability reaches the reference's{value}, or the end of training"
    elif training.stop_when != "auto" and training.stop_when:
        text = f"when {' or '.join(training.stop_when)}, or the end of training"
    if "steps" in found:
        stopped = found.get("stopped", "end")
        why = {"end": "the end of training", REACHED: "the reference was reached"}
        text += f"; stopped at step {found['steps']:,}: {why.get(stopped, stopped)}"
    if found.get("best"):
        text += f"; the model is that of step {found['best']['step']:,}, {training.best}"
    return text


def _weights(page: Page) -> dict[str, Any]:
    """Counts of weights, exactly, and where the selected ones are."""
    state = page.state
    mask, unlearned, patch = (state.get(name, {}) for name in ("mask", "unlearn", "patch"))
    blocks, kinds = page.density.get("block", {}), page.density.get("kind", {})
    candidates = mask.get("candidates")
    selected = unlearned.get("selected")
    ratio = _chosen_ratio(page)
    exact = (
        ratio is not None
        and candidates is not None
        and (selected == math.floor(Decimal(str(ratio)) * candidates))
    )
    inside = {name: pair for name, pair in blocks.items() if name.isdecimal() and pair[1]}
    total = [sum(pair[i] for pair in kinds.values()) for i in (0, 1)]
    overall = total[0] / total[1] if total[1] else 0.0
    shares = {name: chosen / of for name, (chosen, of) in inside.items()}
    return {
        "candidates": candidates,
        "selected": selected,
        "ratio": ratio if exact else None,
        "adapter": page.recipe.unlearning.lora is not None,
        "changed": patch.get("changed", unlearned.get("changed")),
        "total": patch.get("total"),
        "tensors": patch.get("tensors"),
        "outside": patch.get("outside_mask"),
        "bytes": patch.get("bytes"),
        "share": patch.get("share_of_model"),
        "fingerprints": {
            role: e.details["model"]["fingerprint"][:12]
            for role, e in page.evaluations.items()
            if e.details.get("model", {}).get("fingerprint")
        },
        "overall": overall,
        "top": top([chosen / of for chosen, of in kinds.values() if of], overall),
        "least": min(shares.items(), key=lambda item: item[1], default=None),
        "most": max(shares.items(), key=lambda item: item[1], default=None),
        "kinds": [
            (n, *pair, pair[0] / pair[1], n in blocks) for n, pair in kinds.items() if pair[1]
        ],
        "chart": density_chart(inside, overall, "share of selected weights per block"),
    }


_LARGE = 0.005  # of the weights of the blocks: smaller kinds (norms, biases) set no scale


def _heat(page: Page) -> dict[str, Any]:
    """Density by block and kind; the shades range over the kinds that hold most weights."""
    cells = {
        place(name): pair for name, pair in page.density.get("parameter", {}).items() if pair[1]
    }
    cells = {key: pair for key, pair in cells.items() if key[0]}  # inside the blocks only
    if len({block for block, _ in cells}) < 2:
        return {"chart": ""}
    weights: dict[str, int] = {}
    for (_, kind), (_, of) in cells.items():
        weights[kind] = weights.get(kind, 0) + of
    least = _LARGE * sum(weights.values())
    shares = [chosen / of for (_, kind), (chosen, of) in cells.items() if weights[kind] >= least]
    overall = sum(chosen for chosen, _ in cells.values()) / sum(weights.values())
    # at least a fifth around the mean, so that the noise of a random mask looks even
    ends = (min([*shares, 0.8 * overall]), max([*shares, min(1.0, 1.2 * overall)]))
    return {
        "chart": heat_chart(cells, ends, "share of selected weights per block and kind of module"),
        "ends": ends,
        "shades": [HEAT[0] + (HEAT[1] - HEAT[0]) * step / 4 for step in range(5)],
    }


def _scores(page: Page) -> dict[str, Any]:
    """The scores of all blocks together, and the one at which the mask cuts."""
    mask = page.state.get("mask", {})
    counts: dict[int | None, int] = {}
    for bins in (mask.get("score_histogram") or {}).values():
        for exponent, n in bins:
            counts[exponent] = counts.get(exponent, 0) + n
    total = sum(counts.values())
    zero = counts.pop(None, 0)
    ratios, limits = mask.get("ratios") or [], mask.get("thresholds") or []
    limit = dict(zip(ratios, limits, strict=False)).get(_chosen_ratio(page))
    shares = {e: n / total for e, n in counts.items() if e is not None and n}
    drawn = limit is not None and limit > 0
    return {
        "chart": scores_chart(shares, limit, "scores of the candidate weights"),
        "zero": zero / total if total else 0.0,
        "threshold": limit if drawn else None,
    }


def _training(page: Page) -> dict[str, Any]:
    goal = _figure(page, "reference", "forget", "probability")
    return {
        "steps": len(page.history),
        "taught": len(page.teaching),
        "most": POINTS,
        "goal": goal,
        "loss": lines_chart(
            page.history,
            {"forget_nll": False, "retain_nll": True},
            "loss of forget and retain records per unlearning step",
            y_title="mean NLL, nats",
        ),
        "probability": lines_chart(
            page.history,
            {"forget.probability": False},
            "probability of the forget set while unlearning",
            y_title="forget probability",
            goal=goal.value if goal else None,
        ),
        "teaching": lines_chart(
            page.teaching,
            {"retain_nll": False},
            "loss of the taught records per step",
            y_title="mean NLL, nats",
        ),
    }


def _pairs(answers: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The questions with what each model said, in the order in which they come."""
    found: dict[str, dict[str, Any]] = {}
    for role, said in answers.items():
        for one in said:
            pair = found.setdefault(
                one["place"],
                {key: one[key] for key in ("place", "question", "expected")} | {"said": {}},
            )
            pair["said"][role] = one
    return list(found.values())

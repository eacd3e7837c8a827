"""The page docs/objectives.md: every objective, generated from the table and its docstring."""

from __future__ import annotations

import inspect
import re

from wagle.unlearning.objectives.choice import choose_objective
from wagle.unlearning.objectives.entry import Objective
from wagle.unlearning.objectives.table import OBJECTIVES

_RETAIN = {
    "nll": "training on the retain set (`nll`)",
    "kl": "closeness to the original model on the retain set (`kl`)",
    "none": "none",
}


def objectives_page() -> str:
    """Every objective with its retain term, inputs, settings, meaning and source, as Markdown."""
    lines = [
        "# Objectives",
        "",
        "Generated from `wagle.unlearning.objectives` by `make pages`. How to use them: "
        "[unlearning.md](unlearning.md). What one setting of each did on the demo model: "
        "[objectives-measured.md](objectives-measured.md).",
        "",
        "M is a record's mean answer NLL, S its sum, in nats; `_ref` stands for the original model. A "
        "loss is a mean over records. Every objective also has the settings `forget_weight` and "
        "`retain_weight`. `retain_term: nll`, `kl` or `none` replaces the retain term named here (if it "
        "replaces *its own*, `retain_weight` is 1 unless set), except where that is *built in*: the dual "
        "of `pdu` prices the retain NLL, and `none`, `retain_finetune` and `l1_sparse` have no forget "
        "term.",
        "",
        "| objective | retain term | bounded below | asks for |",
        "| --- | --- | --- | --- |",
    ]
    for name, entry in sorted(OBJECTIVES.items()):
        asked = ", ".join(f"`{one}`" for one in choose_objective(name).inputs) or "nothing"
        bounded = "yes" if entry.bounded else "no"
        lines.append(f"| [`{name}`](#{name}) | {_retain(entry)} | {bounded} | {asked} |")
    for name, entry in sorted(OBJECTIVES.items()):
        lines += _section(name, entry)
    return "\n".join(lines) + "\n"


def _retain(entry: Objective) -> str:
    return _RETAIN.get(entry.retain, "built in" if entry.own is None else "its own")


def _section(name: str, entry: Objective) -> list[str]:
    chosen = choose_objective(name)
    told, settings, source = _parts(inspect.getdoc(entry.function) or "")
    weights = {"forget_weight": entry.forget_weight, "retain_weight": entry.retain_weight}
    other = {k: v for k, v in weights.items() if v != 1.0}
    lines = ["", f"## {name}", "", told]
    if entry.own is not None:
        kept, more, origin = _parts(inspect.getdoc(entry.own) or "")
        lines += ["", f"*Its own retain term.* {kept}"]
        settings |= more
        source += f" Retain term: {origin}" * bool(origin)
    for key, value in {**chosen.settings, **other}.items():
        meaning = settings.get(key, "")
        lines += [""] * (lines[-1][:2] != "- ") + [f"- `{key}: {value!r}` {meaning}".rstrip()]
    if source:
        lines += ["", f"Source: {source}"]
    return lines


def _parts(text: str) -> tuple[str, dict[str, str], str]:
    """A docstring's description, its text for each argument, and its source."""
    head = re.split(r"\n(?:Args|Returns|Raises|Source):", text)[0]
    told = "\n\n".join(" ".join(part.split()) for part in head.strip().split("\n\n"))
    found = re.search(r"\nSource: (.*)", text, re.S)
    source = " ".join(found[1].split()) if found else ""
    arguments = re.search(r"\nArgs:\n(.*?)(?:\n\n|\Z)", text, re.S)
    settings = {}
    for one in re.split(r"\n    (?=\w+: )", "\n" + (arguments[1] if arguments else "")):
        key, _, meaning = one.strip().partition(": ")
        settings[key] = " ".join(meaning.split())
    return told.replace("``", "`"), {k: v.replace("``", "`") for k, v in settings.items()}, source

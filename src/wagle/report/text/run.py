"""The table and the JSON of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wagle.evaluation.figures import ROLES
from wagle.evaluation.result import Evaluation, read_evaluation
from wagle.report.attack_findings import strongest
from wagle.report.files import read_attack, read_state, read_summary, told
from wagle.report.numbers import or_dash, small
from wagle.report.text.evaluations import entry, figure_lines, role_lines, verdict_lines
from wagle.system.errors import WagleError


def summary_json(folder: Path) -> dict[str, Any]:
    """Figures, paired differences, verdict, costs and attacks of a run, as JSON."""
    state = read_state(folder / "state.json")["stages"]
    evaluation = read_summary(folder / "evaluation.json")
    found = {"evaluation": evaluation, "stages": state}
    files = {label: _file(folder, "after", label) for label in _asked(evaluation)}
    after = {label: read_evaluation(file) for label, file in files.items() if file.is_file()}
    found["differences"] = {
        label: {key: one.details[key] for key in ("changes", "differences") if key in one.details}
        for label, one in after.items()
    }
    made = state.get("attacks", {}).get("attacks", {})
    if made:
        found["attacks"] = {
            label: read_attack(folder / "attacks" / f"{label}.json") for label in made
        }
    return found


def _asked(evaluation: Mapping[str, Any]) -> list[str]:
    """What was asked: the recipe's own sets, under their benchmark's name, and its benchmarks."""
    return ["qa", *evaluation.get("benchmarks", {})]


def _file(folder: Path, role: str, label: str) -> Path:
    tail = "" if label == "qa" else f"-{label}"
    return folder / "evaluation" / f"{role}{tail}.json"


def _evaluations(folder: Path, label: str) -> dict[str, Evaluation]:
    """The evaluations of a run by role, for its own sets or a benchmark."""
    paths = {role: _file(folder, role, label) for role in ROLES}
    return {role: read_evaluation(p) for role, p in paths.items() if p.is_file()}


def summary_table(
    folder: Path,
    everything: bool = False,
    roles: Mapping[str, Mapping[str, Any] | None] | None = None,
) -> str:
    """What ``wagle run`` prints at the end.

    Args:
        folder: the folder of a run that has an unlearned model.
        everything: show all figures, not only the leading ones.
        roles: path, fingerprint and kind of its models, by role.
    """
    found = summary_json(folder)
    state = found["stages"]
    lines: list[str] = []
    own = "before" if "skipped" in state.get("unlearn", {}) else "after"
    for label in _asked(found["evaluation"]):
        title = [] if label == "qa" else [f"benchmark {label}"]
        evaluations = _evaluations(folder, label)
        if own not in evaluations:
            raise WagleError(f"{_file(folder, own, label)} does not exist; restore it")
        lines += [*title, *figure_lines(evaluations, own, everything), ""]
    for label, attack in found.get("attacks", {}).items():
        lines += entry("attack", f"{label}: {strongest(attack)}")
    for arm, control in state.get("controls", {}).get("arms", {}).items():
        lines += entry("control", f"{arm}: {_control_text(control)}")
    lines += _made_lines(state)
    lines += _served_lines(state)
    spent = {name: stage.get("seconds", 0.0) for name, stage in state.items()}
    seconds = {name: value for name, value in spent.items() if value >= 0.5}
    peak = max((stage.get("peak_bytes", 0) for stage in state.values()), default=0) / 1e9
    parts = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    lines += entry("time", f"{sum(spent.values()):.0f} s ({parts}); peak memory {peak:.2f} GB")
    lines += role_lines(roles or {})
    lines += verdict_lines(told(state, "after", "verdict"), state["after"].get("reasons", []))
    return "\n".join([*lines, *entry("report", str(folder / "report.html"))])


def _served_lines(state: Mapping[str, Any]) -> list[str]:
    """What the forms leave in which the model is served."""
    lines: list[str] = []
    judged = state.get("after", {}).get("served", {})
    for form, made in state.get("deploy", {}).get("forms", {}).items():
        lines += entry("served", f"{form}: {_control_text({**made, **judged.get(form, {})})}")
    if judged:
        lines += entry("", f"({told(state, 'deploy', 'compared_with')})")
    return lines


def _made_lines(state: Mapping[str, Any]) -> list[str]:
    """What was trained, and the patch; why nothing was, if nothing was."""
    mask, unlearn, patch = (state.get(name, {}) for name in ("mask", "unlearn", "patch"))
    if "skipped" in unlearn:
        return entry("weights", f"none selected or changed: {unlearn['skipped']}")
    of = f" of {mask['candidates']:,}" if mask.get("candidates") is not None else ""
    selected, changed = (told(state, "unlearn", key) for key in ("selected", "changed"))
    if "lora" in unlearn:
        lines = entry(
            "adapter",
            f"{selected:,}{of} weights trained, {changed:,} changed, then merged into the model",
        )
    else:
        lines = entry(
            "weights",
            f"{selected:,}{of} selected, {changed:,} changed, the rest bit-identical",
        )
    if unlearn.get("landed"):
        lines += entry("landed", landed_text(unlearn["landed"]))
    if patch.get("bytes") is not None:
        share = told(state, "patch", "share_of_model")
        size = f"{patch['bytes'] / 1e6:.1f} MB, {share:.1%} of the model"
        lines += entry("patch", size)
    return lines


def landed_text(landed: Mapping[str, Any]) -> str:
    """Where a run landed, as tables and reports say it."""
    early, late = landed["between"]
    low, high = landed["aim"]
    at = (
        f"at step {late}"
        if landed["share"] == 1
        else (f"{landed['share']:.0%} of the way from step {early} to step {late}")
    )
    return f"{landed['figure']} {landed['value']:.3f} {at}, aimed at {low:.3f} to {high:.3f}"


def _control_text(control: Mapping[str, Any]) -> str:
    """The main figures of a control arm's model, or of what is served, and its verdict."""
    found = control["summary"]
    texts = [
        f"{name}.{metric} {or_dash(found[name][metric], small)}"
        for name, metric in (
            ("forget", "probability"),
            ("forget", "paraphrased"),
            ("forget", "extraction_strength"),
            ("retain", "probability"),
        )
        if metric in found.get(name, {})
    ]
    return f"{', '.join(texts)}; {control.get('verdict', 'no verdict')}"

"""The keys of the published WAGLE code and of SOUL: their defaults, and how their values are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wagle.recipe.published.dotted import leaves
from wagle.recipe.published.imported import Notes
from wagle.recipe.values import shown
from wagle.system.errors import WagleError, nearest

WAGLE, SOUL = "the published WAGLE code", "SOUL"
_ONLY_WAGLE = {"unlearn.max_steps", "unlearn.mask_path", "unlearn.p", "unlearn.q", "unlearn.mu"}
_ONLY_WAGLE_METHODS = {"NPO+FT"}


class Key(NamedTuple):
    """A key of a config.

    Attributes:
        kind: what its value is.
        default: its value if it is not given.
        there: what the published code does with it, if nothing here does; else empty.
    """

    kind: type
    default: Any
    there: str = ""


_KEYS = {
    "overall.model_name": Key(str, None),
    "overall.logger": Key(str, "none", "chooses whether results are written as JSON"),
    "overall.cache_dir": Key(str, ".cache", "keeps downloaded models and data sets there"),
    "overall.seed": Key(int, 0),
    "unlearn.unlearn_method": Key(str, "origin"),
    "unlearn.num_epochs": Key(int, 1),
    "unlearn.lr": Key(float, 1e-4),
    "unlearn.weight_decay": Key(float, 0.0),
    "unlearn.gradient_accumulation_steps": Key(int, 1),
    "unlearn.mask_path": Key(str, None),
    "unlearn.task_name": Key(str, "toxic"),
    "unlearn.sophia": Key(bool, False),
    "unlearn.p": Key(float, 0.01, "reads it and does nothing with it"),
    "unlearn.q": Key(float, 0.01, "reads it and does nothing with it"),
    "unlearn.resume_path": Key(str, None, "evaluates that model; here: wagle evaluate MODEL"),
    "unlearn.max_steps": Key(int, -1),
    "unlearn.use_lora": Key(bool, False),
    "unlearn.mu": Key(float, 1e-3),
    "unlearn.sophia_params.betas_low": Key(float, 0.9),
    "unlearn.sophia_params.betas_high": Key(float, 0.95),
    "unlearn.sophia_params.rho": Key(float, 0.03),
    "unlearn.l1_sparse.alpha": Key(float, 0.0),
    "unlearn.CL+FT.gamma": Key(float, 1.0),
    "unlearn.CL+KL.gamma": Key(float, 0.0),
    "unlearn.GA+FT.gamma": Key(float, 0.0),
    "unlearn.GA+KL.gamma": Key(float, 0.0),
    "unlearn.KL.gamma": Key(float, 0.0),
    "unlearn.NPO+FT.gamma": Key(float, 0.0),
    "dataset.forget_dataset_name": Key(str, "SafePku"),
    "dataset.retain_dataset_name": Key(str, "TruthfulQA"),
    "dataset.dataset_seed": Key(int, 0),
    "dataset.forget_ratio": Key(float, 200.0),
    "dataset.self_retain": Key(bool, False),
    "dataset.batch_size": Key(int, 16),
    "logger.name": Key(str, None, "names the folder of its results; here: --out"),
    "logger.json.root": Key(str, "files/logs", "writes its results there; here: --out"),
}
KEYS: dict[str, dict[str, Key]] = {
    WAGLE: _KEYS,
    SOUL: {
        **{
            key: found
            for key, found in _KEYS.items()
            if key not in _ONLY_WAGLE and not key.startswith("unlearn.NPO+FT")
        },
        "unlearn.weight_decay": Key(float, 0.1),
        "unlearn.NPO.gamma": Key(float, 0.0),
        "unlearn.GA_FT_epoch.gamma": Key(float, 0.0),
        "unlearn.GA_KL_epoch.gamma": Key(float, 0.0),
        "unlearn.CL_FT_epoch.gamma": Key(float, 1.0),
        "dataset.retain_dataset_name": Key(str, "C4"),
    },
}


def whose(given: Mapping[str, Any]) -> str:
    """Whose config it is: only the WAGLE code has masks, a number of steps, and ``NPO+FT``."""
    method = given.get("unlearn.unlearn_method")
    return WAGLE if _ONLY_WAGLE & given.keys() or method in _ONLY_WAGLE_METHODS else SOUL


def read_values(
    files: Sequence[tuple[str, Mapping[str, Any]]],
    overrides: Sequence[tuple[str, str]],
    notes: Notes,
) -> tuple[str, dict[str, Any]]:
    """Whose config it is, and the value of every key: of the files, then of the command line.

    Args:
        files: each with its name; of two, the later one has the last word.
        overrides: dotted keys with their values.
        notes: gets a line for every key that is given and has no counterpart.

    Raises:
        WagleError: a value is not of its key's kind, or the command line has a key that none has.
    """
    given: dict[str, tuple[str, Any]] = {}
    for name, data in files:
        given.update({key: (name, value) for key, value in leaves(data)})
    given.update({key: ("command line", value) for key, value in overrides})
    project = whose({key: value for key, (_, value) in given.items()})
    known = KEYS[project]
    values = {key: found.default for key, found in known.items()}
    for key, (where, value) in given.items():
        if key not in known:
            _refuse_or_note(key, where, known, notes)
            continue
        if value is None or value in ("null", "None"):
            continue
        values[key] = _read(known[key].kind, value, f"{where}: {key}")
        if known[key].there:
            notes.left_out.append(f"{key} ({where}): {project} {known[key].there}")
    return project, values


def _refuse_or_note(key: str, where: str, known: Mapping[str, Key], notes: Notes) -> None:
    guess = nearest(key, known)
    hint = f"; nearest: {guess}" if guess else ""
    if where == "command line":
        raise WagleError(f"--{key} is no key of that code{hint}")
    notes.left_out.append(f"{key} ({where}): no key of that code, which ignores it{hint}")


def _read(kind: type, value: Any, where: str) -> Any:
    """A value as that code reads it: it may be text, and true may be 1."""
    text = {True: "1", False: "0"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    if kind is str and not isinstance(value, bool | Mapping | list):
        return text
    if kind is bool and text.lower() in ("0", "1", "true", "false"):
        return text.lower() in ("1", "true")
    if kind in (int, float) and not isinstance(value, bool):
        try:
            number = float(text)
            if kind is float:
                return number
            if number == int(number):
                return int(number)
        except (ValueError, OverflowError):
            pass
    words = {str: "text", bool: "0, 1, true or false", int: "a whole number", float: "a number"}
    raise WagleError(f"{where} is {shown(value)}; it must be {words[kind]}")

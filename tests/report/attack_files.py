"""Files of attacks, as a run holds them."""

from __future__ import annotations

from typing import Any

LOOKS = "the attack only looks"


def figure(value: float | None, note: str | None = None, n: int = 4) -> dict[str, Any]:
    interval = None if value is None else [value - 0.1, value + 0.1]
    return {"value": value, "interval": interval, "n": n, "unit": "share", "note": note}


def effect(
    rise: float | None, recovered: float | None, gap: float | None, note: str | None = None
) -> dict[str, Any]:
    return {"rise": rise, "recovered": recovered, "gap": gap, "note": note}


def attack(
    name: str, roles: dict[str, Any], effects: dict[str, Any], **more: Any
) -> dict[str, Any]:
    return {
        "schema": "wagle-attack/1",
        "attack": name,
        "settings": {},
        "seed": 0,
        "roles": {role: {"states": states, "details": {}} for role, states in roles.items()},
        "effects": effects,
        **more,
    }


def relearning(reference: bool = True) -> dict[str, Any]:
    def model(*values: float) -> dict[str, Any]:
        return {
            f"step {step}": {"forget.probability": figure(v), "forget.nll": figure(9.0)}
            for step, v in zip((0, 2, 10), values, strict=True)
        }

    roles = {"after": model(0.1, 0.2, 0.5), "before": model(0.9, 0.9, 0.9)}
    if reference:
        roles["reference"] = model(0.1, 0.15, 0.3)
    gaps = (0.05, 0.2) if reference else (None, None)
    effects = {
        "step 2": {
            "forget.probability": effect(0.1, 0.125, gaps[0]),
            "forget.nll": effect(0.0, None, 9.0),
        },
        "step 10": {"forget.probability": effect(0.4, 0.5, gaps[1])},
    }
    return attack("relearning", roles, effects)


def sampling() -> dict[str, Any]:
    def model(p: float) -> dict[str, Any]:
        leaks = {f"leak@{k}": figure(p * k, "leaks from 0.5 on") for k in range(1, 7)}
        return {"forget": {**leaks, "rouge_l@1": figure(0.5)}}

    roles = {"after": model(0.1), "before": model(0.15), "reference": model(0.05)}
    effects = {"forget": {f"leak@{k}": effect(None, None, 0.05 * k, LOOKS) for k in range(1, 7)}}
    return attack("sampling", roles, effects)


def probe(reference: bool = True) -> dict[str, Any]:
    def model(value: float) -> dict[str, Any]:
        return {
            "forget_or_holdout": {
                "auc_block_0": figure(0.99),
                "auc_maximum": figure(value),
                "auc_maximum_shuffled": figure(0.55, "of shuffled labels"),
            }
        }

    roles = {"after": model(0.8), "before": model(0.9)}
    roles |= {"reference": model(0.6)} if reference else {}
    gap = 0.2 if reference else None
    effects = {
        "forget_or_holdout": {
            "auc_maximum": effect(None, None, gap, LOOKS),
            "auc_maximum_shuffled": effect(None, None, 5.0, LOOKS),
        }
    }
    return attack("probe", roles, effects)

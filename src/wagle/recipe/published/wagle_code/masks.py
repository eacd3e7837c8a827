"""The mask paths of the published WAGLE code: each is a file, or says which mask it makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from wagle.recipe.published.imported import MaskFile, Notes, Places
from wagle.system.errors import WagleError, nearest

_SCORES: dict[str, str | dict[str, list[str]]] = {
    "FFN": {"by_name": ["ffn"]},
    "gradient": "grad_forget",
    "random": "random",
    "snip_advanced": "wagle",
    "snip_advanced_CL": "wagle_refusal",
    "snip_advanced_gn": "wagle_gauss_newton",
    "wanda": "wanda",
    "weight": "magnitude",
}
_THERE = {  # what is not as it should be in each
    "FFN": "its names are those of OPT and phi, so it selects nothing of a Llama or a Mistral, and "
    "it writes only with_0.0.pt",
    "random": "it draws in bfloat16 without a seed of its own, with many ties",
    "snip_advanced_gn": "its curvature is the square of a sum, so a small retain gradient makes a "
    "huge score",
    "wanda": "embeddings, norms and the head are not masked and train fully; it counts padding and "
    "reads 128 forget records",
}
_REFUSED = {
    "gradient_vis": "writes the scores of gradient to a file and ends",
    "weight_vis": "writes the scores of weight to a file and ends",
    "snip_advanced_visualization": "writes scores to a file and ends",
    "snip_advanced_new": "has poles at weights of zero; nearest: snip_advanced",
    "snip": "cannot be reached there; nearest here: score snip_forget",
    "snip_forget": "cannot be reached there; here: score snip_forget",
    "snip_visualization": "cannot be reached there",
    "snip_smooth": "cannot be reached there",
    "snip_forget_reinit": "cannot be reached there",
    "hessian": "cannot be reached there",
    "hessianfree": "cannot be reached there; nearest here: score hessian_free",
    "hessianfree_smooth": "cannot be reached there; nearest here: score hessian_free",
    "normalizedhf": "cannot be reached there",
    "gradient_smooth": "cannot be reached there",
}
_RATIOS = (0.1, 0.2, 0.4, 0.6, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0)  # all that it writes
_OF_MU = ("wagle", "wagle_refusal")


def mask_of(
    values: Mapping[str, Any], corrected: bool, places: Places, notes: Notes
) -> tuple[dict[str, Any], MaskFile | None]:
    """The section ``attribution`` of a config, and the published mask that it uses.

    Raises:
        WagleError: a score that nothing here is, or a ratio that the published code never writes.
    """
    path = values.get("unlearn.mask_path")
    if path is None:
        return {}, None
    if values["unlearn.use_lora"]:
        raise WagleError(
            "unlearn.use_lora and unlearn.mask_path are both given, and the published code stops: "
            "frozen weights have no gradient to mask; give one of them"
        )
    if not corrected:
        notes.differs.append("clip_before_mask: it clips by the norm of all weights' gradients")
        notes.differs.append("weight decay: there it also reaches weights outside the mask")
    made = re.search(r"(?:^|/)([^/]+)/with_([0-9.]+)\.pt$", path)
    if made is None or places.exists(path):
        if path.endswith(".safetensors"):
            return {"mask": path}, None
        out = path.rpartition("/")[2].removesuffix(".pt") + ".safetensors"
        return {"mask": out}, MaskFile(path, out)
    return _to_make(made[1], made[2], values, corrected, notes), None


def _to_make(
    name: str, ratio: str, values: Mapping[str, Any], corrected: bool, notes: Notes
) -> dict[str, Any]:
    """The mask that the published code would make, since there is no such file."""
    if name in _REFUSED:
        raise WagleError(f"unlearn.mask_path: the published score {name} {_REFUSED[name]}")
    if name not in _SCORES:
        guess = nearest(name, _SCORES)
        hint = f"; nearest: {guess}" if guess else ""
        raise WagleError(
            f"unlearn.mask_path: {name} is no score of the published code{hint} "
            f"(known: {', '.join(_SCORES)})"
        )
    try:
        share = float(ratio)
    except ValueError:
        raise WagleError(f"unlearn.mask_path: with_{ratio}.pt names no ratio") from None
    score = _SCORES[name]
    if isinstance(score, str) and not corrected and share not in _RATIOS:
        raise WagleError(
            f"unlearn.mask_path asks for the ratio {ratio}, which the published code never writes "
            f"(it writes {', '.join(map(str, _RATIOS))}); --corrected takes any"
        )
    notes.remarks.append(
        f"the published score {name} is {score if isinstance(score, str) else 'by name: ffn'} here"
    )
    if name in _THERE and not corrected:
        notes.differs.append(f"score {name}: {_THERE[name]}")
    found: dict[str, Any] = {"score": score}
    if isinstance(score, str):
        found["ratio"] = share
    if score in _OF_MU:
        steps = values["unlearn.gradient_accumulation_steps"]
        found["gamma"] = {"mu": values["unlearn.mu"], "accumulation": steps}
        notes.imitated.append(
            "attribution.gamma {mu, accumulation}: its mu, whose effect depends on the number of "
            "forget records and on the accumulation"
        )
    return found

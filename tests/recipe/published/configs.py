"""Published configs, rebuilt from their values."""

from __future__ import annotations

from typing import Any

_TOFU, _ZEPHYR = "locuslab/tofu_ft_llama2-7b", "HuggingFaceH4/zephyr-7b-beta"
_ROWS: dict[str, tuple[Any, ...]] = {
    # model, seed, method, lr, decay, steps, mask, p, task, forget, retain, ratio, log folder
    "Tofu/GradDiff+WAGLE": (
        _TOFU,
        0,
        "GA+FT",
        7e-6,
        0.1,
        -1,
        "tofu_0.95",
        0.95,
        "tofu",
        "GradDiff+WAGLE",
    ),
    "Tofu/NPO+WAGLE": (_TOFU, 1, "NPO+FT", 1e-5, 0.1, 400, "tofu_0.95", 0.95, "tofu", "NPO+WAGLE"),
    "Tofu/PO+WAGLE": (_TOFU, 0, "CL+FT", 2e-5, 0.1, -1, "tofu_0.8", 0.8, "tofu", "WAGLE+PO"),
    "wmdp/GradDiff+WAGLE": (
        _ZEPHYR,
        3,
        "GA+FT",
        5e-6,
        0.0,
        500,
        "wmdp_0.4",
        0.01,
        "wmdp",
        "GradDiff+WAGLE",
    ),
    "wmdp/NPO+WAGLE": (_ZEPHYR, 0, "NPO+FT", 1e-5, 0.0, 500, "wmdp_0.6", 0.01, "wmdp", "NPO+WAGLE"),
}


def _wagle(row: tuple[Any, ...]) -> dict[str, Any]:
    model, seed, method, lr, decay, steps, mask, p, task, log = row
    tofu = task == "tofu"
    return {
        "overall": {"model_name": model, "logger": "json", "cache_dir": "./.cache", "seed": seed},
        "unlearn": {
            "unlearn_method": method,
            "num_epochs": 5,
            "lr": lr,
            "weight_decay": decay,
            "gradient_accumulation_steps": 4,
            "mask_path": f"./mask/{mask}.pt",
            "task_name": task,
            "sophia": False,
            "p": p,
            "q": p,
            "resume_path": None,
            "max_steps": steps,
            "use_lora": False,
            "mu": 1e-6,
            method: {"gamma": 1.0},
        },
        "dataset": {
            "forget_dataset_name": "Tofu_forget10" if tofu else "WMDPALL",
            "retain_dataset_name": "Tofu_retain90" if tofu else "WMDPALL",
            "dataset_seed": 1000,
            "forget_ratio": 400.0 if tofu else 1.0,
            "self_retain": False,
            "batch_size": 1,
        },
        "logger": {"json": {"root": f"files/results/unlearn_{task}/{log}"}},
    }


WAGLE = {name: _wagle(row) for name, row in _ROWS.items()}

_SOPHIA = {"sophia": True, "sophia_params": {"betas_low": 0.9, "betas_high": 0.95, "rho": 0.04}}


def _soul(
    model: str, task: str | None, epochs: int, lr: float, gamma: float, method: str, **more: Any
):
    tofu = task == "tofu"
    return {
        "overall": {"model_name": model, "logger": "json", "cache_dir": "./.cache", "seed": 0},
        "unlearn": {
            "unlearn_method": method,
            "num_epochs": epochs,
            "lr": lr,
            "weight_decay": 0.1 if tofu else 0.0,
            "gradient_accumulation_steps": 4,
            **({"task_name": task} if task else {}),
            **({method: {"gamma": gamma}} if method != "origin" else {}),
            **more,
        },
        "dataset": {
            "forget_dataset_name": "Tofu_forget10" if tofu else "SafePku",
            "retain_dataset_name": "Tofu_retain90" if tofu else "C4",
            "dataset_seed": 1000,
            "forget_ratio": 400 if tofu else 200,
            "self_retain": False,
            "batch_size": 1,
        },
        "logger": {"json": {"root": "files/results/x/"}},
    }


_LLAMA, _OPT = "meta-llama/Llama-2-7b-hf", "facebook/opt-1.3b"
SOUL = {
    "TOFU/FO_GradDiff": _soul(_TOFU, "tofu", 5, 5e-6, 0.3, "GA+FT"),
    "TOFU/FO_PO": _soul(_TOFU, "tofu", 5, 2e-5, 1.0, "CL+FT"),
    "TOFU/SO_GradDiff": _soul(_TOFU, "tofu", 5, 5e-6, 2, "GA+FT", **_SOPHIA),
    "TOFU/SO_PO": _soul(_TOFU, "tofu", 5, 1e-5, 5.0, "CL+FT", **_SOPHIA),
    "TOFU/origin": _soul(_TOFU, "tofu", 5, 1e-5, 0, "origin"),
    "Toxic/FO_PO_llama": _soul(_LLAMA, None, 10, 1e-5, 1.0, "CL+FT"),
    "Toxic/FO_PO_opt": _soul(_OPT, None, 5, 2e-5, 0.1, "CL+FT"),
    "Toxic/SO_PO_llama": _soul(_LLAMA, None, 10, 1e-5, 0.1, "CL+FT", **_SOPHIA),
    "Toxic/SO_PO_opt": _soul(_OPT, None, 5, 2e-5, 0.1, "CL+FT", **_SOPHIA),
}

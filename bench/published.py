"""Published configs, rebuilt from their values, and what wagle makes of them.

For the page docs/from-other-projects.md, the ready recipes and the tests.
"""

from __future__ import annotations

from typing import Any

from wagle.recipe.published.imported import Imported, dump_short
from wagle.recipe.published.open_unlearning.recipe import import_words
from wagle.recipe.published.wagle_code.recipe import import_config
from wagle.recipe.schema import FILE

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
) -> dict[str, Any]:
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

OPEN_UNLEARNING = (
    "experiment=unlearn/tofu/default trainer=NPO task_name=b",
    "experiment=unlearn/tofu/idk forget_split=forget05 retain_split=retain95 task_name=c",
    "experiment=unlearn/muse/default data_split=Books trainer=GradDiff "
    "trainer.method_args.retain_loss_type=KL task_name=d",
    "experiment=unlearn/muse/default trainer=SimNPO trainer.method_args.beta=3 task_name=e",
    "experiment=unlearn/wmdp/default task_name=f",
    "experiment=unlearn/tofu/default trainer=RMU task_name=g",
)
_READY = {  # the ready recipes made of the published files
    "wagle-tofu-graddiff": "Tofu/GradDiff+WAGLE",
    "wagle-tofu-npo": "Tofu/NPO+WAGLE",
    "wagle-tofu-po": "Tofu/PO+WAGLE",
    "wagle-wmdp-graddiff": "wmdp/GradDiff+WAGLE",
    "wagle-wmdp-npo": "wmdp/NPO+WAGLE",
}


def imported() -> dict[str, tuple[Imported, Imported]]:
    """Every config by its title, as a faithful and as a corrected recipe."""
    found = {}
    for name, config in (WAGLE | SOUL).items():
        file = f"{name.rpartition('/')[2]}.json"
        sides = [import_config([(file, config)], corrected=how) for how in (False, True)]
        found[f"{name}.json"] = (sides[0], sides[1])
    for line in OPEN_UNLEARNING:
        sides = [import_words(line.split(), corrected=how) for how in (False, True)]
        found[f"`{line}`"] = (sides[0], sides[1])
    return found


def ready(name: str) -> str:
    """The text of a ready recipe, made of a published file."""
    source = _READY[name]
    file = f"configs/unlearn/{source}.json"
    made = import_config([(file, WAGLE[source])], corrected=True)
    assert made.mask is not None
    needed = "".join(f"#   {one.path}: {one.fetched}\n" for one in made.notes.needed)
    return (
        f"# {file} of the published WAGLE code (arXiv 2410.17509), corrected.\n"
        f"# yaml-language-server: $schema={FILE}\n"
        "# Made by `make pages` from that file's values; docs/from-other-projects.md shows both forms.\n"
        f"# It reads, in the current folder, with {made.mask.path} made of its .pt file by\n"
        f"# `wagle mask import` (or without attribution.mask, and a score in its place):\n{needed}"
        + dump_short({**made.recipe, "name": name})
    )


READY = tuple(_READY)

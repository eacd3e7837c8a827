"""OpenUnlearning's config groups, as data: what a name such as ``trainer=NPO`` stands for.

Only what a recipe can say is kept; keys without a counterpart are in ``WITHOUT``.
"""

from __future__ import annotations

from typing import Any

_PROMPT = "You are a helpful assistant."
_CHAT = {"apply_chat_template": True, "system_prompt": _PROMPT}
_PLAIN = {
    "apply_chat_template": False,
    "user_start_tag": "Question: ",
    "user_end_tag": "\n",
    "asst_start_tag": "Answer: ",
    "asst_end_tag": "\n\n",
}
_LLAMA2 = {
    "apply_chat_template": False,
    "user_start_tag": "[INST] ",
    "user_end_tag": " [/INST]",
    "asst_start_tag": "",
    "asst_end_tag": " ",
}


def _model(path: str, template: dict[str, Any]) -> dict[str, Any]:
    return {
        "model_args": {"pretrained_model_name_or_path": path},
        "template_args": template,
    }


MODELS: dict[str, dict[str, Any]] = {
    "Llama-2-13b-hf": _model("meta-llama/Llama-2-13b-hf", _PLAIN),
    "Llama-2-7b-chat-hf": _model("meta-llama/Llama-2-7b-chat-hf", _LLAMA2),
    "Llama-2-7b-hf": _model("meta-llama/Llama-2-7b-hf", _PLAIN),
    "Llama-3.1-8B-Instruct": _model("meta-llama/Llama-3.1-8B-Instruct", _CHAT),
    "Llama-3.2-1B-Instruct": _model("meta-llama/Llama-3.2-1B-Instruct", _CHAT),
    "Llama-3.2-3B-Instruct": _model("meta-llama/Llama-3.2-3B-Instruct", _CHAT),
    "Phi-3.5-mini-instruct": _model("microsoft/Phi-3.5-mini-instruct", _CHAT),
    "Qwen2.5-1.5B-Instruct": _model("Qwen/Qwen2.5-1.5B-Instruct", _CHAT),
    "Qwen2.5-3B-Instruct": _model("Qwen/Qwen2.5-3B-Instruct", _CHAT),
    "Qwen2.5-7B-Instruct": _model("Qwen/Qwen2.5-7B-Instruct", _CHAT),
    "gemma-7b-it": _model("google/gemma-7b-it", {"apply_chat_template": True}),
    "phi-1_5": _model("microsoft/phi-1_5", _PLAIN),
    "zephyr-7b-beta": _model("HuggingFaceH4/zephyr-7b-beta", _CHAT),
}

_ARGS = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 4,
    "learning_rate": 1e-5,
    "bf16": True,
    "gradient_checkpointing": False,
    "optim": "paged_adamw_32bit",
    "weight_decay": 0.0,
    "num_train_epochs": 10,
    "seed": 0,
}
_BOTH = {"gamma": 1.0, "alpha": 1.0, "retain_loss_type": "NLL"}


def _trainer(handler: str, methods: dict[str, Any] | None = None, **args: float) -> dict[str, Any]:
    found: dict[str, Any] = {"handler": handler, "args": {**_ARGS, **args}}
    return found if methods is None else {**found, "method_args": methods}


TRAINERS: dict[str, dict[str, Any]] = {
    "CEU": _trainer("CEU", {"ignore_first_n_answer_tokens": 1}),
    "DPO": _trainer("DPO", {**_BOTH, "beta": 0.1}),
    "GradAscent": _trainer("GradAscent"),
    "GradDiff": _trainer("GradDiff", _BOTH),
    "NPO": _trainer("NPO", {**_BOTH, "beta": 0.1}),
    "PDU": _trainer(
        "PDU",
        {
            **_BOTH,
            "retain_loss_eps": "???",
            "primal_dual": True,
            "dual_step_size": 1.0,
            "dual_update_upon": "step",
            "dual_warmup_epochs": 5,
            "loss_names": ["forget_loss", "retain_loss"],
        },
    ),
    "RMU": _trainer(
        "RMU",
        {
            **_BOTH,
            "alpha": 1,
            "steering_coeff": 2,
            "retain_loss_type": "EMBED_DIFF",
            "module_regex": r"model\.layers\.7",
            "trainable_params_regex": [".*"],
        },
    ),
    "SatImp": _trainer(
        "SatImp", {**_BOTH, "beta1": 5.0, "beta2": 1.0, "gamma": 0.1}, num_train_epochs=5
    ),
    "SimNPO": _trainer("SimNPO", {**_BOTH, "delta": 0.0, "beta": 4.5, "gamma": 0.125}),
    "UNDIAL": _trainer("UNDIAL", {**_BOTH, "alpha": 0.0, "beta": 10.0}, learning_rate=1e-4),
    "WGA": _trainer("WGA", {**_BOTH, "beta": 1.0}, num_train_epochs=5),
}


def _tofu(name: str, **more: Any) -> dict[str, Any]:
    hub = {"path": "locuslab/TOFU", "name": name, "split": "train"}
    keys = {"question_key": "question", "answer_key": "answer", "max_length": 512}
    return {"handler": "QADataset", "args": {"hf_args": hub, **keys}, **more}


def _muse(name: str, split: str) -> dict[str, Any]:
    hub = {"path": "muse-bench/MUSE-News", "name": name, "split": split}
    return {
        "handler": "PretrainingDataset",
        "args": {"hf_args": hub, "text_key": "text", "max_length": 2048},
    }


def _wmdp(file: str) -> dict[str, Any]:
    hub = {"path": "text", "data_files": f"data/wmdp/wmdp-corpora/{file}", "split": "train"}
    return {
        "handler": "PretrainingDataset",
        "args": {"hf_args": hub, "text_key": "text", "max_length": 512},
    }


_IDK = _tofu("forget10")
SETS: dict[str, dict[str, Any]] = {
    "MUSE_forget": _muse("raw", "forget"),
    "MUSE_forget_scal": _muse("scal", "forget_4"),
    "MUSE_forget_sust": _muse("sust", "forget_1"),
    "MUSE_retain": _muse("raw", "retain1"),
    "TOFU_QA_forget": _tofu("forget10"),
    "TOFU_QA_forget_idk": {
        "handler": "QAwithIdkDataset",
        "args": {**_IDK["args"], "idk_path": "./data/idk.jsonl", "return_original": True},
    },
    "TOFU_QA_full": _tofu("full"),
    "TOFU_QA_retain": _tofu("retain90"),
    "WMDP_forget": _wmdp("cyber-forget-corpus.jsonl"),
    "WMDP_retain": _wmdp("cyber-retain-corpus.jsonl"),
}

EVALS: dict[str, dict[str, Any]] = {
    "lm_eval": {"tasks": ["mmlu"], "overwrite": False},
    "muse": {"data_split": "News", "retain_logs_path": None, "overwrite": False},
    "tofu": {
        "forget_split": "forget10",
        "holdout_split": "holdout10",
        "retain_logs_path": None,
        "question_key": "question",
        "batch_size": 32,
        "overwrite": False,
    },
}

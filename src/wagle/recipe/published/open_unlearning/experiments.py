"""OpenUnlearning's experiments, as data in the form of its files."""

from __future__ import annotations

from typing import Any

_TOFU_ARGS = {
    "warmup_epochs": 1.0,
    "learning_rate": 1e-5,
    "weight_decay": 0.01,
    "num_train_epochs": 10,
}
_TOFU_MODEL = {
    "model_args": {
        "pretrained_model_name_or_path": "open-unlearning/tofu_Llama-3.2-1B-Instruct_full"
    }
}


def _named(forget: str, retain: str) -> dict[str, Any]:
    return {
        "anchor": "forget",
        "forget": {forget: {"args": {"hf_args": {"name": "${forget_split}"}}}},
        "retain": {retain: {"args": {"hf_args": {"name": "${retain_split}"}}}},
    }


def _tofu_experiment(model: str, trainer: str, forget: str) -> dict[str, Any]:
    return {
        "defaults": [
            {"override /model": model},
            {"override /trainer": trainer},
            {"override /data/datasets@data.forget": forget},
            {"override /data/datasets@data.retain": "TOFU_QA_retain"},
            {"override /eval": "tofu"},
        ],
        "model": _TOFU_MODEL,
        "forget_split": "forget10",
        "retain_split": "retain90",
        "retain_logs_path": None,
        "eval": {
            "tofu": {
                "forget_split": "${forget_split}",
                "retain_logs_path": "${retain_logs_path}",
                "overwrite": True,
            }
        },
        "data": _named(forget, "TOFU_QA_retain"),
        "trainer": {"args": _TOFU_ARGS},
        "task_name": "???",
    }


def _muse_experiment(forget: str, split: str) -> dict[str, Any]:
    hub = "muse-bench/MUSE-${data_split}"
    return {
        "defaults": [
            {"override /model": "Llama-2-7b-hf"},
            {"override /trainer": "GradAscent"},
            {"override /data/datasets@data.forget": forget},
            {"override /data/datasets@data.retain": "MUSE_retain"},
            {"override /eval": "muse"},
        ],
        "data_split": "News",
        "forget_split": split,
        "retain_split": "retain1",
        "retain_logs_path": None,
        "model": {"model_args": {"pretrained_model_name_or_path": f"{hub}_target"}},
        "data": {
            "anchor": "forget",
            "forget": {forget: {"args": {"hf_args": {"path": hub, "split": "${forget_split}"}}}},
            "retain": {
                "MUSE_retain": {"args": {"hf_args": {"path": hub, "split": "${retain_split}"}}}
            },
        },
        "eval": {
            "muse": {
                "data_split": "${data_split}",
                "retain_logs_path": "${retain_logs_path}",
                "overwrite": True,
            }
        },
        "trainer": {
            "args": {
                "per_device_train_batch_size": 4,
                "gradient_accumulation_steps": 8,
                "learning_rate": 1e-5,
                "num_train_epochs": 10,
                "lr_scheduler_type": "constant",
            }
        },
        "task_name": "???",
    }


_TOFU = _tofu_experiment("Llama-3.2-1B-Instruct", "GradAscent", "TOFU_QA_forget")
_WMDP = "data/wmdp/wmdp-corpora/${data_split}"
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "unlearn/muse/default": _muse_experiment("MUSE_forget", "forget"),
    "unlearn/muse/scalability": _muse_experiment("MUSE_forget_scal", "forget_4"),
    "unlearn/muse/sustainabilty": _muse_experiment("MUSE_forget_sust", "forget_4"),
    "unlearn/tofu/default": {
        **_TOFU,
        "holdout_split": "holdout10",
        "question_key": "question",
        "eval": {
            "tofu": {
                **_TOFU["eval"]["tofu"],
                "holdout_split": "${holdout_split}",
                "question_key": "${question_key}",
            }
        },
    },
    "unlearn/tofu/idk": _tofu_experiment("Llama-3.2-3B-Instruct", "DPO", "TOFU_QA_forget_idk"),
    "unlearn/wmdp/default": {
        "defaults": [
            {"override /model": "zephyr-7b-beta"},
            {"override /trainer": "RMU"},
            {"override /data/datasets@data.forget": "WMDP_forget"},
            {"override /data/datasets@data.retain": "WMDP_retain"},
            {"override /eval": "lm_eval"},
        ],
        "data_split": "cyber",
        "data": {
            "anchor": "forget",
            "forget": {
                "WMDP_forget": {"args": {"hf_args": {"data_files": f"{_WMDP}-forget-corpus.jsonl"}}}
            },
            "retain": {
                "WMDP_retain": {"args": {"hf_args": {"data_files": f"{_WMDP}-retain-corpus.jsonl"}}}
            },
        },
        "eval": {"lm_eval": {"tasks": ["wmdp_${data_split}", "mmlu"]}},
        "trainer": {
            "args": {
                "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 16,
                "learning_rate": 5e-5,
                "max_steps": 80,
                "lr_scheduler_type": "constant",
            },
            "method_args": {
                "gamma": 1.0,
                "steering_coeff": 2,
                "retain_loss_type": "EMBED_DIFF",
                "alpha": 1,
                "module_regex": r"model\.layers\.7",
                "trainable_params_regex": [r"model\.layers\.(5|6|7)\.mlp\.down_proj\.weight"],
            },
        },
        "task_name": "???",
    },
}

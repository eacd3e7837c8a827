"""From OpenUnlearning's config to a recipe."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from wagle.recipe.published.dotted import find, merge
from wagle.recipe.published.imported import EVERY, Imported, Notes, Places, finish
from wagle.recipe.published.open_unlearning.composing import Composed, compose
from wagle.recipe.published.open_unlearning.sets import Set, read_set
from wagle.recipe.published.open_unlearning.trainers import objective_of
from wagle.recipe.values import shown
from wagle.system.errors import WagleError

OPEN_UNLEARNING = "OpenUnlearning"
_OPTIMIZERS = {
    "adamw_8bit": "AdamW8bit",
    "adamw_bnb_8bit": "AdamW8bit",
    "adamw_hf": "AdamW",
    "adamw_torch": "AdamW",
    "adamw_torch_fused": "AdamW",
    "paged_adamw": "PagedAdamW32bit",
    "paged_adamw_32bit": "PagedAdamW32bit",
    "paged_adamw_8bit": "PagedAdamW8bit",
    "sgd": "SGD",
}
_SCHEDULES = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "cosine": "cosine",
    "linear": "linear",
}
_TEMPLATES = {  # by the tag before a question and the one before an answer
    ("Question: ", "Answer: "): "question_answer",
    ("[INST] ", ""): "llama2",
}


def import_words(
    words: Sequence[str],
    *,
    corrected: bool = False,
    places: Places | None = None,
    processes: int = 1,
    read: Callable[[str], Mapping[str, Any] | None] = lambda _: None,
    experiment: tuple[str, Mapping[str, Any]] | None = None,
) -> Imported:
    """The recipe of a command line of OpenUnlearning's ``src/train.py --config-name=unlearn.yaml``.

    Args:
        words: ``experiment=unlearn/tofu/default``, ``trainer=NPO``, ``a.b=value`` and so on.
        corrected: leave out what imitates a defect.
        places: where models and records are.
        processes: how many processes it would run with.
        read: the content of a file; None if there is none.
        experiment: an experiment file that is given as such: its name and its content.

    Raises:
        WagleError: a word, a key or a value without a counterpart.
    """
    notes, places = Notes(), places or Places()
    made = compose(words, read, notes, experiment)
    config = made.config
    forget = read_set("forget", find(config, "data.forget"), places, notes)
    retain = read_set("retain", find(config, "data.retain"), places, notes)
    objective, attribution = objective_of(
        config["trainer"]["handler"],
        config["trainer"].get("method_args", {}),
        forget.alternatives,
        corrected,
        notes,
    )
    anchor = find(config, "data.anchor", "forget")
    counted = forget if anchor == "forget" else retain
    trained = _training(made, counted.records, processes)
    benchmarks = _benchmarks(config["eval"], places, notes)
    names = [one["name"] for one in benchmarks]
    asks = not forget.text or bool({"tofu", "muse"} & set(names))
    recipe = {
        "name": _name(find(config, "task_name", "???")),
        "seed": _whole("trainer.args.seed", find(config, "trainer.args.seed", 0)),
        "model": _model(
            config["model"], max(forget.max_length, retain.max_length), asks, places, notes
        ),
        "forget": forget.section,
        "retain": retain.section,
        "attribution": attribution,
        "unlearning": {**objective, **trained, "anchor": anchor},
        "evaluation": {"benchmarks": benchmarks},
    }
    if not corrected:
        _defects(forget, config, notes)
    merged = dict.fromkeys(recipe) | merge(EVERY, recipe)
    return Imported(OPEN_UNLEARNING, corrected, finish(merged), notes)


def _name(task: Any) -> str:
    if task in ("???", None):
        raise WagleError("task_name must be given: task_name=NAME")
    return re.sub(r"[^A-Za-z0-9._-]", "-", str(task))


def _model(
    given: Mapping[str, Any], length: int, asks: bool, places: Places, notes: Notes
) -> dict[str, Any]:
    hub = str(find(given, "model_args.pretrained_model_name_or_path"))
    path = notes.need(places.of_model(hub), f"the model {hub}", "give its folder: --model FOLDER")
    found: dict[str, Any] = {"path": path, "max_length": length}
    template = given.get("template_args", {})
    if not asks:
        return found
    if template.get("apply_chat_template"):
        if template.get("system_prompt"):
            found["system_prompt"] = template["system_prompt"]
        return found
    tags = (template.get("user_start_tag", ""), template.get("asst_start_tag", ""))
    if tags in _TEMPLATES:
        found["template"] = _TEMPLATES[tags]
    else:
        notes.left_out.append(
            f"model.template_args {shown(tags)}: no template here has these tags; the model's own is "
            "used (model.template)"
        )
    return found


def _training(made: Composed, records: int | None, processes: int) -> dict[str, Any]:
    args = made.config["trainer"]["args"]
    batch = _whole("per_device_train_batch_size", args["per_device_train_batch_size"])
    every = _whole("gradient_accumulation_steps", args["gradient_accumulation_steps"])
    schedule = str(args.get("lr_scheduler_type", "linear"))
    found: dict[str, Any] = {
        "optimizer": _named(_OPTIMIZERS, "optim", args["optim"]),
        "schedule": _named(_SCHEDULES, "lr_scheduler_type", schedule),
        "learning_rate": _number("learning_rate", args["learning_rate"]),
        "weight_decay": _number("weight_decay", args["weight_decay"]),
        "batch_size": batch,
        "accumulation": every * processes,
        "precision": "bfloat16" if args.get("bf16") else "float32",
        "activation_checkpointing": args.get("gradient_checkpointing") is True,
        **_length(args, records, batch, every, processes),
    }
    if schedule == "constant":
        found.pop("warmup_steps", None)  # which that schedule does not read
    if "max_grad_norm" in args:
        found["max_grad_norm"] = _number("max_grad_norm", args["max_grad_norm"])
    tracker = args.get("report_to")
    if "trainer.args.report_to" in made.given and tracker not in (None, "none"):
        found["report_to"] = tracker if isinstance(tracker, list) else [tracker]
    return found


def _length(
    args: Mapping[str, Any], records: int | None, batch: int, every: int, processes: int
) -> dict[str, Any]:
    """How long it trains, and how long it warms up."""
    epochs = _number("num_train_epochs", args["num_train_epochs"])
    steps = _whole("max_steps", args.get("max_steps", -1))
    found: dict[str, Any] = {}
    if steps < 1 and records is not None:
        per_epoch = max(1, math.ceil(records / batch / processes) // every)
        steps = math.ceil(epochs * per_epoch)
    if steps > 0:
        found["max_steps"] = steps
    elif epochs == int(epochs):
        found["epochs"] = int(epochs)
    else:
        raise WagleError(
            f"trainer.args.num_train_epochs is {epochs:g}, and how many records there are is not "
            "known here: give trainer.args.max_steps"
        )
    warm = _number("warmup_epochs", args.get("warmup_epochs", 0))
    share = _number("warmup_ratio", args.get("warmup_ratio", 0))
    if args.get("warmup_steps"):
        found["warmup_steps"] = _whole("warmup_steps", args["warmup_steps"])
    elif warm and records is not None:
        found["warmup_steps"] = int(warm * records // (batch * every * processes))
    elif share and steps > 0:
        found["warmup_steps"] = math.ceil(share * steps)
    elif warm or share:
        raise WagleError(
            "how many steps to warm up cannot be told here, since the records were not counted: "
            "give trainer.args.warmup_steps and ~trainer.args.warmup_epochs"
        )
    return found


def _benchmarks(given: Any, places: Places, notes: Notes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name, asked in (given or {}).items():
        if asked.get("retain_logs_path"):
            notes.left_out.append(
                f"eval.{name}.retain_logs_path: OpenUnlearning compares with the figures of a "
                "retrained model in that file; here with the model itself: reference=FOLDER, or "
                "wagle evaluate RUN --reference FOLDER"
            )
        if name == "tofu":
            found.append({"name": "tofu", "settings": _tofu(asked, places, notes)})
        elif name == "muse":
            corpus = str(asked.get("data_split", "News")).lower()
            data = notes.need(
                places.of_data(corpus),
                f"verbmem, knowmem and privleak of muse-bench/MUSE-{asked.get('data_split')}",
                "put verbmem/forget.jsonl and the others there",
            )
            settings = {"data": data, "corpus": corpus, "variant": "open_unlearning"}
            found.append({"name": "muse", "settings": settings})
        else:
            found += _tasks(asked.get("tasks") or [])
    return found


def _tofu(asked: Mapping[str, Any], places: Places, notes: Notes) -> dict[str, Any]:
    split, held = str(asked.get("forget_split")), asked.get("holdout_split")
    if asked.get("question_key", "question") != "question":
        notes.left_out.append(
            "eval.tofu.question_key: OpenUnlearning asks that field; here questions are asked as "
            "they are, and paraphrases where a figure needs them"
        )
    if "holdout_split" in asked and str(held).removeprefix("holdout") != split.removeprefix(
        "forget"
    ):
        notes.remarks.append(
            f"eval.tofu.holdout_split {held} is not that of {split}; here the latter's own is read, "
            "if there is one"
        )
    found = {"data": places.of_data("TOFU")}
    if split != "forget10":
        found["split"] = split
    return {**found, "variant": "open_unlearning"}


def _tasks(names: Sequence[Any]) -> list[dict[str, Any]]:
    if not all(isinstance(name, str) for name in names):
        raise WagleError(
            "eval.lm_eval.tasks defines a task; here give it as a file: harness data=FILE"
        )
    others = [name for name in names if name != "mmlu"]
    found: list[dict[str, Any]] = []
    if others:
        found.append({"name": "harness", "settings": {"tasks": others}})
    return [*found, *([{"name": "mmlu"}] if "mmlu" in names else [])]


def _defects(forget: Set, config: Mapping[str, Any], notes: Notes) -> None:
    """Note what is not imitated, whatever the method is."""
    notes.imitated.append(
        "unlearning.pairing: random, a retain record drawn anew for every forget record"
    )
    notes.differs.append(
        "optimizer_dtype: on one GPU it updates bfloat16 weights in bfloat16, which loses small "
        "updates"
    )
    hub = str(find(config, "model.model_args.pretrained_model_name_or_path"))
    if find(config, "model.template_args.apply_chat_template") and not forget.text:
        notes.differs.append(
            "attention: where the end of a turn also pads, it hides every end of a turn"
        )
        if "date_string" in find(config, "model.template_args", {}) or "Llama-3" in hub:
            notes.differs.append("date_string: its chat template says a fixed date, 10 Apr 2025")
    if forget.text:
        notes.differs.append(
            "texts: it joins all texts, cuts them into windows and decodes these again"
        )
    if "data/wmdp" in str(find(config, "data.forget")):
        notes.differs.append("WMDP: it trains on the raw JSON of the files, here on their texts")


def _named(table: Mapping[str, str], key: str, given: Any) -> str:
    if str(given) not in table:
        raise WagleError(
            f"trainer.args.{key} {given} has no counterpart (known: {', '.join(table)})"
        )
    return table[str(given)]


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WagleError(f"{key} is {shown(value)}; it must be a number")
    return float(value)


def _whole(key: str, value: Any) -> int:
    number = _number(key, value)
    if number != int(number):
        raise WagleError(f"{key} is {shown(value)}; it must be a whole number")
    return int(number)

"""OpenUnlearning's config, composed as its command line composes it.

First the groups (``trainer=NPO``) that the defaults, then the experiment, then the command line
choose; over these the experiment's values, then the command line's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from wagle.recipe.published.dotted import find, leaves, merge, put, without
from wagle.recipe.published.imported import Notes
from wagle.recipe.published.open_unlearning.experiments import EXPERIMENTS
from wagle.recipe.published.open_unlearning.groups import EVALS, MODELS, SETS, TRAINERS
from wagle.recipe.syntax import parse_yaml
from wagle.system.errors import WagleError, choose, nearest

_CHOSEN = {
    "model": "Llama-3.2-3B-Instruct",
    "trainer": "GradAscent",
    "data.forget": "TOFU_QA_forget",
    "data.retain": "TOFU_QA_retain",
    "eval": "tofu",
}
_TABLES: dict[str, Mapping[str, Any]] = {
    "model": MODELS,
    "trainer": TRAINERS,
    "data.forget": SETS,
    "data.retain": SETS,
    "eval": EVALS,
}
_ELSEWHERE = ("collator", "data", "hydra", "paths")  # groups that change nothing here
READ = (  # what a recipe takes up
    "task_name",
    "mode",
    "data.anchor",
    "data.forget.*",
    "data.retain.*",
    "eval.*.retain_logs_path",
    "eval.tofu.*_split",
    "eval.tofu.question_key",
    "eval.muse.data_split",
    "eval.lm_eval.tasks",
    "model.model_args.pretrained_model_name_or_path",
    "model.template_args.*",
    "trainer.handler",
    "trainer.method_args.*",
    *(
        f"trainer.args.{name}"
        for name in (
            "bf16",
            "gradient_accumulation_steps",
            "gradient_checkpointing",
            "learning_rate",
            "lr_scheduler_type",
            "max_grad_norm",
            "max_steps",
            "num_train_epochs",
            "optim",
            "per_device_train_batch_size",
            "report_to",
            "seed",
            "warmup_epochs",
            "warmup_ratio",
            "warmup_steps",
            "weight_decay",
        )
    ),
)
WITHOUT = {  # keys without a counterpart, and what the published code does with them
    "collator.*": "pads its batches so; here it changes no result",
    "data.eval*": "looks at that set while it trains; here: unlearning.evaluate_every",
    "eval.*.batch_size": "asks so many questions at once; here it changes no result",
    "eval.*.metrics*": "chooses figures; here all of the variant are measured",
    "eval.*.output_dir": "writes figures there; here: --out",
    "eval.*.overwrite": "evaluates again; here: --again after",
    "eval.lm_eval.simple_evaluate_args*": "passes it to lm-eval; here: settings of the benchmark",
    "hydra.*": "is Hydra's own",
    "model.model_args.*": "loads the model so; here: settings of model",
    "model.tokenizer_args.*": "loads the tokenizer so; here it is the model folder's",
    "paths.*": "writes its results there; here: --out",
    "trainer.args.adam_*": "sets up AdamW; here: unlearning.optimizer_settings",
    "trainer.args.bf16_full_eval": "evaluates in bfloat16; here: evaluation.precision",
    "trainer.args.dataloader_*": "loads records so; here it changes no result",
    "trainer.args.ddp_*": "sets up its processes; here it changes no result",
    "trainer.args.do_*": "says which of its steps to do; here all are done",
    "trainer.args.eval_*": "says when to evaluate; here: before and after",
    "trainer.args.logging_*": "says when to log; here every step is logged",
    "trainer.args.output_dir": "writes its results there; here: --out",
    "trainer.args.per_device_eval_batch_size": "evaluates so many at once",
    "trainer.args.remove_unused_columns": "keeps the fields of records; here it changes nothing",
    "trainer.args.save_*": "says when to save; here checkpoints are for resuming only",
}


@dataclass(frozen=True)
class Composed:
    """A whole config.

    Attributes:
        config: its values, with every ``${x}`` replaced.
        trainer: the chosen trainer.
        given: the keys that the user set, with where.
    """

    config: dict[str, Any]
    trainer: str
    given: dict[str, str]


def compose(
    words: Sequence[str],
    read: Callable[[str], Mapping[str, Any] | None],
    notes: Notes,
    experiment: tuple[str, Mapping[str, Any]] | None = None,
) -> Composed:
    """The config of a command line.

    Args:
        words: ``group=name``, ``a.b=value``, ``+a.b=value`` and ``~a.b``.
        read: a file by its path; None if there is none.
        notes: gets a line for every given key without a counterpart.
        experiment: the name and the content of an experiment file that is given as such.

    Raises:
        WagleError: an unknown group, key or reference, or a word that is neither.
    """
    pairs = [_split(word) for word in words]
    chosen, values = dict(_CHOSEN), {}
    named = [value for key, value in pairs if key == "experiment" and value is not None]
    where, content = experiment or ("", {})
    if named:
        where, content = _experiment(named[-1], read)
    for group, name in _overridden(content, where):
        chosen[group] = name
    values = {key: value for key, value in content.items() if key != "defaults"}
    rest = []
    for key, value in pairs:
        group = _group_of(key)
        if group in chosen and value is not None and not value.startswith("{"):
            chosen[group] = value
        elif key == "experiment" or (group in _ELSEWHERE and value is not None):
            continue
        else:
            rest.append((key, value))
    config = merge(_grouped(chosen), values)
    given = {} if content in EXPERIMENTS.values() else {key: where for key, _ in leaves(values)}
    for key, value in rest:
        if value is None:
            config = without(config, key)
            continue
        _check_known(key, config)
        config = put(config, key, parse_yaml(value, f"{key}={value}"))
        given[key] = "command line"
    _note_rest(given, notes)
    return Composed(_resolved(config, config, ()), chosen["trainer"], given)


def _note_rest(given: Mapping[str, str], notes: Notes) -> None:
    """Note the given keys that a recipe cannot take up."""
    for key, place in given.items():
        if _is_read(key) or "." not in key:
            continue  # a key without a dot is a name for others to refer to
        there = [said for pattern, said in WITHOUT.items() if fnmatchcase(key, pattern)]
        said = f"OpenUnlearning {there[0]}" if there else "nothing here reads it"
        notes.left_out.append(f"{key} ({place}): {said}")


def _split(word: str) -> tuple[str, str | None]:
    """A word's key and value; None: the key is removed."""
    if word.startswith("~"):
        return word[1:].partition("=")[0], None
    key, sign, value = word.partition("=")
    key = key.lstrip("+")
    if not sign or not key:
        raise WagleError(f"{word} is no word of OpenUnlearning's command line; write KEY=VALUE")
    return key, value


def _group_of(key: str) -> str:
    """The group that a key chooses: ``data/datasets@data.forget`` is ``data.forget``."""
    return key.rpartition("@")[2] if "@" in key else key.removeprefix("/")


def _experiment(
    name: str, read: Callable[[str], Mapping[str, Any] | None]
) -> tuple[str, Mapping[str, Any]]:
    short = name.removesuffix(".yaml").removeprefix("/")
    if short in EXPERIMENTS:
        return short, EXPERIMENTS[short]
    for path in (name, f"configs/experiment/{short}.yaml"):
        if (found := read(path)) is not None:
            return path, found
    if short.startswith(("eval/", "finetune/")):
        raise WagleError(
            f"experiment={name} does not unlearn; here: "
            + (
                "wagle evaluate MODEL --benchmark NAME"
                if short[0] == "e"
                else "wagle finetune RECIPE"
            )
        )
    choose(EXPERIMENTS, short, "experiment of OpenUnlearning, and no file")
    raise AssertionError


def _overridden(content: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """The groups that an experiment chooses."""
    found = []
    for entry in content.get("defaults") or []:
        if not isinstance(entry, Mapping):
            continue
        for key, name in entry.items():
            group = _group_of(str(key).removeprefix("override").strip())
            if group in _CHOSEN:
                found.append((group, str(name)))
            elif group not in _ELSEWHERE:
                raise WagleError(f"{where}: defaults has {key}, a group that nothing here reads")
    return found


def _grouped(chosen: Mapping[str, str]) -> dict[str, Any]:
    """The values of the chosen groups."""
    found: dict[str, Any] = {"data": {"anchor": "forget"}}
    for group, name in chosen.items():
        short = name.removesuffix(".yaml")
        entry = choose(_TABLES[group], short, f"{group} of OpenUnlearning")
        inner = entry if group in ("model", "trainer") else {short: entry}
        found = put(found, group, inner)
    return found


def _is_read(key: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in READ)


def _check_known(key: str, config: Mapping[str, Any]) -> None:
    if find(config, key, KeyError) is not KeyError or _is_read(key):
        return
    if any(fnmatchcase(key, pattern) for pattern in WITHOUT):
        return
    known = [*(name for name, _ in leaves(config)), *(name for name in READ if "*" not in name)]
    guess = nearest(key, known)
    hint = f"; nearest: {guess}" if guess else ""
    raise WagleError(f"{key} is no key of OpenUnlearning that anything here reads{hint}")


def _resolved(value: Any, config: Mapping[str, Any], seen: tuple[str, ...]) -> Any:
    """A value with every ``${x}`` replaced by what x is."""
    if isinstance(value, Mapping):
        return {key: _resolved(inner, config, seen) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner, config, seen) for inner in value]
    if not isinstance(value, str):
        return value
    whole = re.fullmatch(r"\$\{([\w.]+)\}", value)
    if whole:
        return _referred(whole[1], config, seen)
    return re.sub(r"\$\{([\w.]+)\}", lambda m: str(_referred(m[1], config, seen)), value)


def _referred(key: str, config: Mapping[str, Any], seen: tuple[str, ...]) -> Any:
    found = find(config, key, KeyError)
    if key.startswith("paths."):
        return f"${{{key}}}"
    if found is KeyError or key in seen:
        raise WagleError(f"${{{key}}} refers to {'itself' if key in seen else 'no key'}")
    return _resolved(found, config, (*seen, key))

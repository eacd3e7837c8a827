"""From the keys of the published WAGLE code, or of SOUL, to a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wagle.recipe.published.dotted import merge
from wagle.recipe.published.imported import EVERY, Imported, MaskFile, Notes, Places, finish
from wagle.recipe.published.wagle_code.keys import SOUL, WAGLE, read_values
from wagle.recipe.published.wagle_code.masks import mask_of
from wagle.recipe.published.wagle_code.methods import objective_of
from wagle.recipe.published.wagle_code.sets import Set, find_set, name_of, subset_of
from wagle.system.errors import WagleError

_WITHOUT_RETAIN = ("origin", "GA", "CL")
_REFUSE_TEXT = ("CL", "CL+FT", "CL+KL", "RL")


def import_config(
    files: Sequence[tuple[str, Mapping[str, Any]]],
    overrides: Sequence[tuple[str, str]] = (),
    *,
    corrected: bool = False,
    places: Places | None = None,
    processes: int = 1,
    own: Sequence[str] = (),
) -> Imported:
    """The recipe of a config of the published WAGLE code or of SOUL.

    Args:
        files: config files, each with its name.
        overrides: the command line's dotted keys with their values.
        corrected: leave out what imitates a published defect.
        places: where models and records are.
        processes: how many processes the published code would run with.
        own: the keys of the recipe's own settings that the user gives besides.

    Raises:
        WagleError: a key or a value that has no counterpart.
    """
    notes, places = Notes(), places or Places()
    project, values = read_values(files, overrides, notes)
    if values["overall.model_name"] is None:
        raise WagleError("overall.model_name is missing; the published code needs it too")
    if project is SOUL and not corrected:
        notes.remarks.append(
            "read as a config of SOUL: none of mask_path, max_steps, p, q and mu is given"
        )
    forget = find_set(name_of(values, "forget"), "forget", places, notes)
    if forget.text and values["unlearn.unlearn_method"] in _REFUSE_TEXT:
        raise WagleError(
            f"unlearn.unlearn_method {values['unlearn.unlearn_method']} with "
            f"{name_of(values, 'forget')}: there the refusal of a text is the text itself, so it "
            "would be taught; use a method without refusals"
        )
    taken, count = subset_of(
        values["dataset.forget_ratio"], values["dataset.dataset_seed"], forget.records
    )
    attribution, mask = mask_of(values, corrected, places, notes)
    trained = objective_of(values, project, corrected, set(own), notes)
    trained |= _training(values, count, processes, notes) | _optimizer(
        values, project, corrected, notes
    )
    made: dict[str, Any] = {
        "name": values["unlearn.task_name"],
        "seed": values["overall.seed"],
        "model": _model(values, forget, corrected, places, notes),
        "forget": {**forget.section, **taken},
        **_retain(values, places, notes),
        "attribution": attribution,
        "unlearning": trained,
        "evaluation": {"benchmarks": _benchmarks(values, forget, corrected, places, notes)},
    }
    if not corrected:
        _defects(forget, taken, notes)
    ordered = dict.fromkeys(made) | merge(EVERY, made)
    if mask is not None:
        _need_mask(mask, notes)
    return Imported(project, corrected, finish(ordered), notes, mask)


def _need_mask(mask: MaskFile, notes: Notes) -> None:
    notes.need(
        mask.published,
        "that file, from its authors' page",
        f"or put the mask file {mask.path} in the current folder, or make a mask: "
        "--unlearn.mask_path mask/snip_advanced/with_RATIO.pt",
    )


def _model(
    values: Mapping[str, Any], forget: Set, corrected: bool, places: Places, notes: Notes
) -> dict[str, Any]:
    hub = values["overall.model_name"]
    path = notes.need(places.of_model(hub), f"the model {hub}", "give its folder: --model FOLDER")
    template = "plain"
    if "llama" in hub.lower() and values["unlearn.task_name"] in ("tofu", "wmdp"):
        template = "llama2" if corrected else "llama2_published"
    if template == "llama2_published":
        notes.imitated.append(
            "model.template: llama2_published, whose closing tag is misspelt ([\\INST]), so the "
            "model never saw it when it was taught"
        )
    return {"path": path, "template": template, "max_length": forget.max_length}


def _retain(values: Mapping[str, Any], places: Places, notes: Notes) -> dict[str, Any]:
    if values["dataset.self_retain"]:
        return {"retain": {"source": "complement"}}
    name = name_of(values, "retain")
    if name == "TruthfulQA" and values["unlearn.unlearn_method"] in _WITHOUT_RETAIN:
        notes.remarks.append(
            "dataset.retain_dataset_name TruthfulQA is left out: there is no such set"
        )
        return {}
    return {"retain": find_set(name, "retain", places, notes).section}


def _training(
    values: Mapping[str, Any], count: int | None, processes: int, notes: Notes
) -> dict[str, Any]:
    batch, every = values["dataset.batch_size"], values["unlearn.gradient_accumulation_steps"]
    epochs, steps = values["unlearn.num_epochs"], values.get("unlearn.max_steps", -1)
    found: dict[str, Any] = {
        "learning_rate": values["unlearn.lr"],
        "weight_decay": values["unlearn.weight_decay"],
        "batch_size": batch,
        "accumulation": every * processes,
    }
    if steps < 0 and count is not None:
        steps = epochs * count // (batch * every * processes)
        if steps < 1:
            raise WagleError(
                f"{epochs} epochs over {count} records make no step of {batch * every * processes}"
            )
    if steps < 1:
        notes.remarks.append(
            "the published code warms up over a tenth of all steps; how many these are is not known "
            "here, since the records were not counted: set unlearning.warmup_steps"
        )
        return {**found, "epochs": epochs}
    return {**found, "max_steps": steps, "warmup_steps": max(1, steps // 10)}


def _optimizer(
    values: Mapping[str, Any], project: str, corrected: bool, notes: Notes
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if values["unlearn.sophia"]:
        low, high, rho = (
            values[f"unlearn.sophia_params.{name}"] for name in ("betas_low", "betas_high", "rho")
        )
        found = {
            "optimizer": "SophiaG",
            "optimizer_settings": {"betas": [low, high], "rho": rho},
        }
        if not corrected and project is WAGLE:
            notes.differs.append(
                "sophia: there its curvature is never updated, so every weight moves by the "
                "learning rate; here it is, every 10 steps"
            )
        elif not corrected:
            found["curvature_every"] = 1
            notes.imitated.append("unlearning.curvature_every: 1, as SOUL updates it at every step")
            notes.differs.append(
                "sophia: there the curvature is that of the whole objective, times a fixed 5120, "
                "and the momentum is updated twice; here it is that of the retain set"
            )
    if values["unlearn.use_lora"]:
        found["lora"] = {
            "rank": 8,
            "alpha": 32,
            "dropout": 0.05,
            "targets": ["q_proj", "v_proj"],
        }
        found["dropout"] = True
    return found


def _benchmarks(
    values: Mapping[str, Any], forget: Set, corrected: bool, places: Places, notes: Notes
) -> list[Any]:
    task = values["unlearn.task_name"]
    if task == "wmdp":
        return [{"name": name} for name in ("wmdp", "wikitext", "mmlu")]
    if task == "tofu":
        return [{"name": "tofu", "settings": _tofu(forget, corrected, places, notes)}]
    if task == "copyright":
        data = notes.need(
            places.of_data("copyright"),
            "hp_train_qa_K.jsonl and hp_test_qa_K.jsonl, which are not published",
            "put train.jsonl and heldout.jsonl there: rows {prompt, response}",
        )
        own: dict[str, Any] = {"name": "copyright", "settings": {"data": data}}
    elif task == "toxic":
        data = notes.need(
            places.of_data("toxicity"),
            "the test prompts of PKU-Alignment/PKU-SafeRLHF, and allenai/real-toxicity-prompts",
            "put one file of each there: rows {prompt}",
        )
        own = {"name": "toxicity", "settings": {"data": data}}
    else:
        raise WagleError(f"unlearn.task_name {task} is none (known: tofu, wmdp, copyright, toxic)")
    return [own, {"name": "wikitext"}, {"name": "few_shot"}]


def _tofu(forget: Set, corrected: bool, places: Places, notes: Notes) -> dict[str, Any]:
    split = forget.section.get("split", "forget10")
    found: dict[str, Any] = {"data": places.of_data("TOFU")}
    if split not in ("forget10", "full"):
        found["split"] = split
    if not corrected:
        found["variant"] = "published"
        notes.imitated.append(
            "evaluation.benchmarks tofu variant: published, whose figures are not TOFU's"
        )
    return found


def _defects(forget: Set, taken: Mapping[str, Any], notes: Notes) -> None:
    """Note what a faithful recipe imitates and what it does not, whatever the method is."""
    notes.imitated.append(
        "unlearning.pairing: random, a retain record drawn anew for every forget record"
    )
    if forget.text:
        notes.differs.append("text_score_padding: it scores the padding of texts")
        notes.differs.append(
            f"texts: it reads only the first {forget.max_length} tokens of each; here every window "
            "of a text is a record"
        )
    else:
        notes.differs.append("score_last_prompt_token: it scores the last token of the prompt")
    notes.differs.append(
        "optimizer_dtype: it updates bfloat16 weights in bfloat16, which loses small updates"
    )
    notes.differs.append("seed: its order of records and its partners are those of seed 42, always")
    if taken and taken["take"] != forget.records:
        notes.differs.append("dataset_seed: the same count, but other records are drawn")

"""What each stage of a run needs, and what each way of unlearning would."""

from __future__ import annotations

from dataclasses import dataclass

from wagle.attribution.gradients.engines import whole_needs
from wagle.attribution.scoring.masks import DEFAULT_RATIO
from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.training import Training
from wagle.recipe.sections.unlearning import Unlearning
from wagle.run.planning import formulas
from wagle.run.planning.formulas import Steps
from wagle.run.planning.terms import How, Need, Shape
from wagle.run.planning.work import Counted, asking, attributing, forgetting, teaching
from wagle.unlearning.engines import Sizes, training_needs
from wagle.unlearning.objectives.choice import choose_objective

RATIOS = (0.001, 0.01, 0.05, 0.8, 1.0)
_MOMENTS = {
    "SGD": 0,
    "Adagrad": 4,
    "RMSprop": 4,
    "Lion": 4,
}  # bytes per weight; the rest: two vectors
_RANK = 8  # of the table's adapters, if the recipe has none


@dataclass(frozen=True)
class Way:
    """A way of unlearning, as a row of the table.

    Attributes:
        name: ``whole``, ``stream``, ``lora`` or ``qlora``.
        ratio: of the selected weights; None for an adapter.
        need: what the stage ``unlearn`` needs this way.
    """

    name: str
    ratio: float | None
    need: Need


def ratio_of(recipe: Recipe) -> float:
    """The share of the weights that a recipe's unlearning trains."""
    if recipe.unmasked is not None:
        return 1.0
    settings = recipe.attribution
    found = settings.use if settings.use is not None else settings.ratio
    if isinstance(found, list):
        found = found[-1]
    return float(DEFAULT_RATIO if found is None else found)


def how_of(recipe: Recipe, settings: Training, *, eager: bool) -> How:
    """How a recipe's models compute while they are trained."""
    return How(
        held=2 if recipe.model.dtype == "bfloat16" else 4,
        half=settings.precision == "bfloat16",
        eager=eager,
        recompute=settings.activation_checkpointing,
        moments=_MOMENTS.get(settings.optimizer, 8),
        slots=_slots(settings) if isinstance(settings, Unlearning) else 1,
        copies=_copies(settings) if isinstance(settings, Unlearning) else 0,
    )


def _slots(settings: Unlearning) -> int:
    """Gradients kept at once: forget, retain and total, and for ``gru`` the smoothed retain one."""
    if settings.wrapper == "gru":
        return 4
    return 3 if settings.wrapper in ("sam", "smooth") or settings.dynamic_mask != "none" else 1


def _copies(settings: Unlearning) -> int:
    """Whether a frozen copy of the model gives its whole distributions."""
    if settings.full_reference not in ("auto", "copy"):
        return 0
    adapter = settings.lora is not None and settings.full_reference == "auto"
    chosen = choose_objective(settings.objective, settings.objective_settings, settings.retain_term)
    asked = any(name.endswith("_logits_ref") for name in chosen.inputs)
    return int(asked and not adapter)


def stage_needs(
    recipe: Recipe, shape: Shape, sets: dict[str, Counted], free: float, *, eager: bool
) -> dict[str, Need]:
    """What every stage of a run that computes needs, by its name, in their order.

    Args:
        recipe: the recipe.
        shape: of its model.
        sets: its records in numbers.
        free: bytes of memory that there are: the engine ``auto`` looks at them.
        eager: whether attention is.
    """
    found: dict[str, Need] = {}
    if recipe.finetune is not None:
        how = how_of(recipe, recipe.finetune, eager=eager)
        for stage, left_out in (("teach", ""), ("retrain", "forget")):
            steps = teaching(recipe, sets, without=left_out)
            if steps and (stage == "teach" or recipe.reference == "retrained"):
                found[stage] = _train_need(recipe.finetune.engine, shape, steps, 1.0, how, free)
    if "forget" not in sets:
        return found
    asked = asking(recipe, sets)
    how = How(half=recipe.evaluation.precision == "bfloat16")
    questions, engine = formulas.evaluate(shape, asked, how), recipe.evaluation.engine
    if engine == "stream" or (engine == "auto" and questions.peak > free):
        questions = formulas.evaluate(shape, asked, how, streamed=True)
    if recipe.reference != "none":
        found["reference"] = questions
    found["before"] = questions
    if recipe.unmasked is None and recipe.attribution.mask is None:
        found |= _mask_needs(recipe, shape, sets, free, eager=eager)
    ratio = ratio_of(recipe)
    found["unlearn"] = _unlearn_need(
        recipe, shape, forgetting(recipe, sets), ratio, free, eager=eager
    )
    if recipe.patch.enabled:
        found["patch"] = formulas.make_patch(shape, ratio)
    found["after"] = questions
    return found


def _mask_needs(
    recipe: Recipe, shape: Shape, sets: dict[str, Counted], free: float, *, eager: bool
) -> dict[str, Need]:
    settings = recipe.attribution
    how = How(2 if recipe.model.dtype == "bfloat16" else 4, settings.precision == "bfloat16", eager)
    passes = attributing(recipe, sets)
    name = settings.engine
    if name == "auto":
        short = whole_needs(shape.total, how.held, in_memory=False) > free
        name = "stream" if short else "whole"
    engine = formulas.attribute_stream if name == "stream" else formulas.attribute_whole
    kept = 2 if settings.store_dtype == "bfloat16" else 4
    ladder = len(settings.ratio) if isinstance(settings.ratio, list) else 1
    return {
        "gradients": engine(shape, passes, how, kept),
        "mask": formulas.select_mask(shape, passes.steps, ladder),
    }


def _unlearn_need(
    recipe: Recipe, shape: Shape, steps: Steps, ratio: float, free: float, *, eager: bool
) -> Need:
    how, lora = how_of(recipe, recipe.unlearning, eager=eager), recipe.unlearning.lora
    if lora is not None:
        quantised = lora.quantize != "none"
        return formulas.train_lora(shape, steps, lora.rank, how, quantised=quantised)
    return _train_need(recipe.unlearning.engine, shape, steps, ratio, how, free)


def _train_need(
    engine: str, shape: Shape, steps: Steps, ratio: float, how: How, free: float
) -> Need:
    """Training by an engine; ``auto`` is chosen as training chooses it."""
    if engine == "auto":
        need = training_needs(
            "whole",
            Sizes(shape.total, shape.block, shape.stem + shape.head, shape.largest),
            selected=int(ratio * shape.total),
            masked=ratio < 1,
            itemsize=how.held,
            moments=how.moments // 4,
        )
        engine = "whole" if need.memory <= free else "stream"
    train = formulas.train_stream if engine == "stream" else formulas.train_whole
    return train(shape, steps, ratio, how)


def ways(recipe: Recipe, shape: Shape, sets: dict[str, Counted], *, eager: bool) -> list[Way]:
    """The stage ``unlearn`` in every way: both engines at five ratios, LoRA and QLoRA."""
    steps, how = forgetting(recipe, sets), how_of(recipe, recipe.unlearning, eager=eager)
    found = [Way("whole", r, formulas.train_whole(shape, steps, r, how)) for r in RATIOS]
    found += [Way("stream", r, formulas.train_stream(shape, steps, r, how)) for r in RATIOS]
    rank = recipe.unlearning.lora.rank if recipe.unlearning.lora else _RANK
    for name, quantised in (("lora", False), ("qlora", True)):
        need = formulas.train_lora(shape, steps, rank, how, quantised=quantised)
        found.append(Way(name, None, need))
    return found


def largest_ratios(
    recipe: Recipe, shape: Shape, sets: dict[str, Counted], memory: int, disk: int, *, eager: bool
) -> dict[str, float | None]:
    """The largest ratio that memory and disk allow, by engine; None where none does."""
    steps, how = forgetting(recipe, sets), how_of(recipe, recipe.unlearning, eager=eager)
    low, high = 1e-4, 1 - 1e-9
    found: dict[str, float | None] = {}
    for name, train in (("whole", formulas.train_whole), ("stream", formulas.train_stream)):
        least, most = train(shape, steps, low, how), train(shape, steps, high, how)
        limits = [
            formulas.largest_ratio(memory, least.peak, most.peak, low),
            formulas.largest_ratio(disk, least.disk_bytes, most.disk_bytes, low),
        ]
        found[name] = None if None in limits else min(r for r in limits if r is not None)
    return found

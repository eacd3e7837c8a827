"""What a stage needs, in bytes and operations: pure functions of numbers, made of ``terms``."""

from __future__ import annotations

from dataclasses import dataclass

from wagle.run.planning.terms import (
    GRADIENT,
    HEAP,
    INDEX,
    LIBRARIES,
    MASTER,
    SMALL,
    Batch,
    How,
    Need,
    Shape,
    Terms,
    activations,
    block_activations,
    casts,
    dense_gradients,
    loading,
    logits,
    resident,
    vectors,
)

_SUMMED = 6.0  # readings of the weights: a batch's gradient is made, cast and added to its sum

# ---------------------------------------------------------------------------------------------
# Training


@dataclass(frozen=True)
class Steps:
    """A training run in numbers.

    Attributes:
        batch: the largest micro-batch.
        steps: optimiser steps.
        tokens: padded tokens that go forward and back, over all steps.
        scored: scored positions among them.
        looked: padded tokens that only go forward: looks and references.
        micros: micro-batches per step, over both sets.
        checkpoints: whether masters and moments are also kept on the disk.
    """

    batch: Batch
    steps: int
    tokens: float
    scored: float
    looked: float = 0.0
    micros: int = 2
    checkpoints: bool = True


def _flops(shape: Shape, run: Steps, passes: float) -> float:
    own = passes * (run.tokens * shape.per_token + run.scored * shape.per_logit)
    return own + run.looked * shape.per_token


def train_whole(shape: Shape, run: Steps, ratio: float, how: How) -> Need:
    """Training with the model in memory; ``ratio`` 1 trains all weights."""
    chosen = ratio * shape.total
    kept = (MASTER + how.moments) * chosen if run.checkpoints else 0.0
    return Need(
        memory={
            "libraries": LIBRARIES,
            "weights": float(how.held * shape.total * (1 + how.copies)),
            "vectors": vectors(shape, ratio, how),
            "activations": activations(shape, run.batch, how),
            "casts": casts(shape, how),
            "logits": logits(shape, run.batch, how),
            "gradients": dense_gradients(shape, how),
        },
        disk={
            "model": float(shape.stored * shape.total),
            "checkpoint": kept,
            "values before": how.held * chosen,
        },
        flops=_flops(shape, run, 4 if how.recompute else 3),
        half=how.half,
        written=shape.stored * shape.total + kept,
        stepped=chosen * run.steps,
        hashed=4.0 * 2 * shape.total,
    )


def train_stream(shape: Shape, run: Steps, ratio: float, how: How) -> Need:
    """Training by blocks: base on disk, vectors in mapped files, every block read twice a step.

    On the disk are, per selected weight, position 4, master 4, gradient 4, moments and the value in the
    model's precision (in memory up to ``SMALL`` bytes of them); and what enters each block, for all
    micro-batches of a step. In memory are the dense gradient of a block or of the
    stem, and own copies of stem and head beside the mapped ones.
    """
    chosen = ratio * shape.total
    each = INDEX + MASTER + GRADIENT * how.slots + how.moments + how.held
    small = each * chosen <= SMALL
    entering = 4.0 * shape.blocks * shape.hidden * run.batch.tokens * run.micros
    weights = float(how.held * (shape.total - shape.stem))
    return Need(
        memory={
            "libraries": LIBRARIES,
            "weights": resident(shape, how) + how.held * (shape.stem + shape.head),
            "vectors": each * (chosen if small else ratio * max(shape.block, shape.largest)),
            "activations": HEAP * block_activations(shape, run.batch, how),
            "logits": logits(shape, run.batch, how),
            "gradients": max(dense_gradients(shape, how), float(how.held * shape.block)),
        },
        disk={
            "model": float(shape.stored * shape.total),
            "vectors": 0.0 if small else each * chosen,
            "entering": entering,
        },
        flops=_flops(shape, run, 4),
        half=how.half,
        read=run.steps * (2 * shape.stored / how.held * weights + each * chosen),
        written=shape.stored * shape.total
        + run.steps * ((MASTER + how.moments) * chosen + entering),
        stepped=chosen * run.steps,
        hashed=4.0 * 2 * shape.total,
    )


def train_lora(shape: Shape, run: Steps, rank: int, how: How, *, quantised: bool = False) -> Need:
    """An adapter of ``rank`` on all linear layers of the blocks; QLoRA holds these in 4.5 bits."""
    trained = rank * shape.ends
    held = float(how.held * shape.total)
    if quantised:
        held -= (how.held - 4.5 / 8) * shape.linear
    return Need(
        memory={
            "libraries": LIBRARIES,
            "weights": held,
            "vectors": float(4 + GRADIENT + how.moments) * trained,
            "activations": activations(shape, run.batch, how),
            "casts": casts(shape, how),
            "logits": logits(shape, run.batch, how),
        },
        disk={"model": float(shape.stored * shape.total), "checkpoint": 12.0 * trained},
        flops=_flops(shape, run, 2),  # no gradients of the base's weights
        half=how.half,
        written=float(shape.stored * shape.total),
        stepped=float(trained * run.steps),
        hashed=4.0 * 2 * shape.total,
    )


# ---------------------------------------------------------------------------------------------
# Gradients, mask, patch


def attribute_whole(shape: Shape, run: Steps, how: How, kept: int = 4) -> Need:
    """Gradients with the model in memory: a float32 sum per weight; ``kept`` bytes each in the store.

    ``run.steps`` is the number of quantities, ``run.micros`` that of batches.
    """
    return Need(
        memory={
            "libraries": LIBRARIES,
            "weights": float(how.held * shape.total),
            "sums": 4.0 * shape.total,
            "activations": activations(shape, run.batch, how),
            "casts": casts(shape, how),
            "logits": logits(shape, run.batch, how),
            "gradients": dense_gradients(shape, how),
        },
        disk={"gradients": float(kept * shape.total * run.steps)},
        flops=_flops(shape, run, 3),
        half=how.half,
        written=float(kept * shape.total * run.steps),
        hashed=4.0 * shape.total,
        decoded=_SUMMED * shape.total * run.micros,
    )


def attribute_stream(shape: Shape, run: Steps, how: How, kept: int = 4) -> Need:
    """Gradients by blocks: two blocks, the sums of one or of the stem, and one batch's activations."""
    largest = max(shape.block, shape.stem, shape.head)
    entering = 4.0 * shape.blocks * shape.hidden * run.tokens
    return Need(
        memory={
            "libraries": LIBRARIES,
            "weights": resident(shape, how),
            "sums": 4.0 * largest * run.steps,
            "activations": HEAP * block_activations(shape, run.batch, how),
            "logits": logits(shape, run.batch, how),
            "gradients": dense_gradients(shape, how),
        },
        disk={"gradients": float(kept * shape.total * run.steps), "entering": entering},
        flops=_flops(shape, run, 4),
        half=how.half,
        read=2.0 * shape.stored * shape.total,
        written=float(kept * shape.total * run.steps) + entering,
        hashed=4.0 * shape.total,
        decoded=_SUMMED * shape.total * run.micros,
    )


def select_mask(shape: Shape, quantities: int, ratios: int = 1) -> Need:
    """Score and select: a few million weights at a time, and the mask's bits."""
    bits = (1 if ratios == 1 else 4) * shape.total / 8
    return Need(
        memory={"libraries": LIBRARIES, "parts": 0.15e9, "mask": bits},
        disk={"mask": bits},
        read=3.0
        * (4 * quantities + shape.stored)
        * shape.total,  # gamma, a histogram, its refinement
        written=bits,
        hashed=4.0 * quantities * shape.total,
    )


def make_patch(shape: Shape, ratio: float) -> Need:
    """Extract and verify: parts of tensors, the positions in one, and the mask's bits."""
    values = ratio * shape.total * shape.stored + min(0.289, ratio * 6) / 8 * shape.total
    return Need(
        memory={
            "libraries": LIBRARIES,
            "parts": 0.05e9,
            "positions": shape.largest / 4,
            "mask": shape.total / 8,
        },
        disk={"patch": values},
        read=4.0 * 2 * shape.stored * shape.total,
        written=2 * values,
        hashed=4.0 * 6 * shape.total,
    )


# ---------------------------------------------------------------------------------------------
# Evaluation


@dataclass(frozen=True)
class Asked:
    """An evaluation in numbers.

    Attributes:
        tokens: tokens that go forward: every context once, and all continuations.
        scored: positions whose likelihood is asked.
        texts: answers that are written.
        context: tokens of their contexts, on average.
        new: tokens of an answer, at most.
        budget: padded tokens of a forward pass.
    """

    tokens: float
    scored: float
    texts: int
    context: float
    new: int
    budget: int = 1024

    @property
    def kept(self) -> float:
        """Tokens whose keys and values are kept at once: prompts and texts, to a limit."""
        return min(self.texts * (2 * self.context + self.new), 2.0 * 64 * self.budget)


def evaluate(shape: Shape, asked: Asked, how: How, *, streamed: bool = False) -> Need:
    """Likelihoods and written answers; ``streamed`` reads the model once for every written token."""
    wide = 4 * (8 * shape.hidden + 3 * shape.inner)  # of one block, nothing kept for backward
    cached = 4.0 * shape.cache_per_token * asked.kept
    generated = asked.texts * asked.new
    rows = min(asked.budget, asked.scored)
    sweeps = 1 + asked.new * (1 if asked.texts else 0)
    memory: Terms = {
        "libraries": LIBRARIES,
        "weights": resident(shape, how) if streamed else float(how.held * shape.total),
        "activations": HEAP * wide * asked.budget,
        "logits": 3.0 * 4 * rows * shape.vocabulary,
        "cache": 0.0 if streamed else cached,
    }
    if not streamed:
        memory["loading"] = loading(shape, how)
    return Need(
        memory=memory,
        disk={"cache": cached} if streamed else {},
        flops=(asked.tokens + generated) * shape.per_token
        + (asked.scored + generated) * shape.per_logit,
        half=how.half,
        read=float(sweeps * shape.stored * shape.total) if streamed else 0.0,
        hashed=4.0 * shape.total,
        decoded=float(shape.total * asked.new * max(1, asked.texts // 64)) if asked.texts else 0.0,
    )


def seconds(need: Need, rates: dict[str, float]) -> float:
    """How long it takes: arithmetic, optimiser and hashing; the disk where it is slower than these.

    Args:
        need: of a stage.
        rates: per second: ``flops`` and ``flops_half``, ``read`` and ``written`` (bytes), ``stepped``
            (weights), ``hashed`` (bytes) and ``decoded`` (weights that a matrix-vector product
            passes).
    """
    compute = need.flops / rates["flops_half" if need.half else "flops"]
    compute += need.stepped / rates["stepped"] + need.hashed / rates["hashed"]
    compute += need.decoded / rates["decoded"]
    disk = need.read / rates["read"] + need.written / rates["written"]
    return max(compute, disk) + rates.get("start", 0.0)


def largest_ratio(most: float, need_at: float, need_dense: float, low: float) -> float | None:
    """The largest ratio in [low, 1) whose need is at most ``most``, for needs that grow linearly.

    Args:
        most: bytes that there are.
        need_at: bytes needed at the ratio ``low``.
        need_dense: bytes needed as the ratio approaches 1.
        low: the smallest ratio considered.

    Returns:
        None if even ``low`` does not fit.
    """
    if need_at > most:
        return None
    slope = (need_dense - need_at) / (1 - low)
    return 1.0 if slope <= 0 else min(1.0, low + (most - need_at) / slope)

"""What a stage needs, in bytes and operations: pure functions of numbers.

Memory is a dictionary of terms; their sum is the peak of resident memory. Every term says what it
counts:

    libraries     Python, torch, transformers and the checks of a run, measured once
    weights       the model as it is held, and frozen copies; with ``stream`` stem, head and two blocks
                  (one is read ahead)
    vectors       of every selected weight: position 4, master 4, gradient 4, and the optimiser's moments
    activations   what backward needs of all blocks (``whole``) or of one (``stream``), with the heap's
                  share of holes
    casts         the bfloat16 copies of the weights that autocast keeps while a batch is computed
    logits        of the scored positions, and their gradient
    gradients     the dense gradients alive at once: those of the largest parameter
    cache         keys and values of the texts that an evaluation writes at once
    loading       the weights as they are stored, while they are widened

Bytes per weight, sums over a model and batches are exact; activations are those of a Llama-like block,
counted tensor by tensor (``block_activations``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

LIBRARIES = 0.63e9  # bytes resident before a model is loaded: what a stage of a run starts with
HEAP = 1.2  # bytes taken over bytes alive, of what is made and freed batch by batch
INDEX, MASTER, GRADIENT = 4, 4, 4  # bytes per selected weight
SMALL = 256 << 20  # bytes of vectors that training by blocks keeps in memory
_SUMMED = 6.0  # readings of the weights: a batch's gradient is made, cast and added to its sum
Terms = dict[str, float]


@dataclass(frozen=True)
class Shape:
    """A model in numbers: weights, and the widths that activations are made of.

    Attributes:
        stem: weights before the blocks; tied ones count here.
        blocks: how many blocks there are.
        block: weights of the largest block.
        head: weights after the blocks that the stem does not have.
        total: all weights, tied ones once.
        largest: weights of the largest parameter.
        largest_in_block: the same among those of the blocks.
        tied: whether the head is the embedding.
        hidden: the width of the hidden states.
        inner: the width inside a feed-forward layer.
        heads: attention heads.
        kv_heads: heads of keys and values.
        head_dim: the width of one head.
        vocabulary: tokens.
        stored: bytes per weight in the folder.
        linear: weights of the blocks' linear layers.
        ends: inputs and outputs of these layers, summed: what a LoRA of rank 1 trains.
    """

    stem: int
    blocks: int
    block: int
    head: int
    total: int
    largest: int
    largest_in_block: int
    tied: bool
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    stored: int
    linear: int
    ends: int

    @property
    def per_token(self) -> int:
        """Operations of one token going forward through the blocks: two for every weight."""
        return 2 * (self.total - self.stem - self.head)

    @property
    def per_logit(self) -> int:
        """Operations of one position going through the head."""
        return 2 * self.hidden * self.vocabulary

    @property
    def cache_per_token(self) -> int:
        """Keys and values of one token in all blocks, in numbers."""
        return 2 * self.blocks * self.kv_heads * self.head_dim


@dataclass(frozen=True)
class Batch:
    """One forward pass: records, their padded length, and how many positions are scored."""

    records: int
    width: int
    scored: int

    @property
    def tokens(self) -> int:
        """Padded tokens."""
        return self.records * self.width


@dataclass(frozen=True)
class How:
    """How a model computes.

    Attributes:
        held: bytes per weight in memory.
        half: whether matrix products run in bfloat16.
        eager: whether attention keeps its probabilities.
        recompute: whether only the inputs of blocks are kept (activation checkpointing).
        moments: what the optimiser keeps, in bytes per weight: 8 for AdamW.
        slots: gradients of the selected weights: more than one for two-sided methods.
        copies: frozen copies of the model, for an objective that asks for whole distributions.
    """

    held: int = 4
    half: bool = False
    eager: bool = False
    recompute: bool = False
    moments: int = 8
    slots: int = 1
    copies: int = 0


@dataclass(frozen=True)
class Need:
    """What a stage needs.

    Attributes:
        memory: bytes by term; the peak is their sum.
        disk: bytes that it leaves or keeps meanwhile, by what they are.
        flops: operations of matrix products.
        half: whether these are of bfloat16.
        read: bytes read from the disk beyond the model once.
        written: bytes written.
        stepped: weights that the optimiser steps on, over all steps.
        hashed: bytes of float32 that fingerprints hash.
        decoded: weights that pass through the processor for written tokens, one at a time, and where
            small batches' gradients are summed.
    """

    memory: Terms
    disk: Terms = field(default_factory=dict)
    flops: float = 0.0
    half: bool = False
    read: float = 0.0
    written: float = 0.0
    stepped: float = 0.0
    hashed: float = 0.0
    decoded: float = 0.0

    @property
    def peak(self) -> float:
        """Peak memory in bytes."""
        return sum(self.memory.values())

    @property
    def on_card(self) -> float:
        """The part of it that a GPU would hold."""
        return self.peak - self.memory.get("libraries", 0.0) - self.memory.get("loading", 0.0)

    @property
    def disk_bytes(self) -> float:
        """All bytes of disk."""
        return sum(self.disk.values())


# ---------------------------------------------------------------------------------------------
# Parts


def block_activations(shape: Shape, batch: Batch, how: How) -> float:
    """Bytes that backward needs of one block, as torch saves them for a Llama block.

    Per token, with H the hidden width, A D that of all heads, I the inner width and T the length:
    float32 keeps 7 H + 3 A D + 4 I numbers of 4 bytes; under bfloat16 4 + 3 of H stay in float32 and
    the rest halves: 28 H + 6 A D + 8 I bytes. Eager attention adds its probabilities, A T numbers (and
    their bfloat16 copy), other attention one row of the mask.
    """
    attention = shape.heads * shape.head_dim
    if how.half:
        each = 28 * shape.hidden + 6 * attention + 8 * shape.inner
        probabilities, row = 6, 2
    else:
        each = 4 * (7 * shape.hidden + 3 * attention + 4 * shape.inner)
        probabilities, row = 4, 4
    each += probabilities * shape.heads * batch.width if how.eager else row * batch.width
    return float(each * batch.tokens)


def activations(shape: Shape, batch: Batch, how: How) -> float:
    """Bytes that backward needs of all blocks; of one and the inputs of all with ``recompute``."""
    one = block_activations(shape, batch, how)
    if how.recompute:
        return HEAP * (one + 4 * shape.blocks * shape.hidden * batch.tokens)
    return HEAP * shape.blocks * one


def logits(shape: Shape, batch: Batch, how: How) -> float:
    """The logits of the scored positions and their gradient, in the precision of matrix products."""
    return 2.0 * batch.scored * shape.vocabulary * (2 if how.half else 4)


def casts(shape: Shape, how: How) -> float:
    """The bfloat16 copies of the weights of blocks and head that autocast makes and keeps."""
    head = shape.hidden * shape.vocabulary
    return (
        2.0 * (shape.total - shape.stem - shape.head + head) if how.half and how.held == 4 else 0.0
    )


def dense_gradients(shape: Shape, how: How) -> float:
    """Float32 or held gradients of the largest parameter: two if the head is the embedding."""
    each = how.held + (2 if how.half else 0)
    return float(shape.largest * each * (2 if shape.tied else 1))


def vectors(shape: Shape, ratio: float, how: How) -> float:
    """Index, master, gradient and moments of the selected weights.

    A dense run has no index; held in float32, its masters are the weights themselves.
    """
    each = GRADIENT * how.slots + how.moments
    if ratio < 1:
        each += INDEX + MASTER
    elif how.held != 4:
        each += MASTER
    return each * ratio * shape.total


def loading(shape: Shape, how: How) -> float:
    """The stored weights, mapped while they are widened or narrowed."""
    return float(shape.stored * shape.total) if shape.stored != how.held else 0.0


def resident(shape: Shape, how: How) -> float:
    """Stem, head and two blocks: what a streamed model holds. A stem is mapped, not copied."""
    return float(how.held * (shape.stem + shape.head + 2 * shape.block))


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

"""What needs are made of: a model, a batch and a way to compute, in numbers, and the terms of memory.

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

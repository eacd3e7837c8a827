"""From a model and two sets of records to a gradient store."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.attribution.engines import ENGINES
from wagle.attribution.store import GradientStore, build_store
from wagle.data.draws import order
from wagle.data.records import Source, check_disjoint, read_records
from wagle.data.tokens import Encoder, as_encoder
from wagle.errors import WagleError, choose
from wagle.model import DTYPES, check_length, load_model


def gradients(
    model: PreTrainedModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    forget: Source,
    retain: Source,
    *,
    path: str | Path | None = None,
    engine: str = "auto",
    retain_records: int | None = None,
    batch_tokens: int = 512,
    store_dtype: str = "float32",
    seed: int = 0,
    precision: str = "float32",
    overlap: str = "error",
) -> GradientStore:
    """Take the gradient of the mean loss on the forget set and on the retain set.

    Per set, d/d(weight) of the mean over records of the mean NLL (nats) over scored tokens;
    float32, dropout off. Source: WAGLE, arXiv 2410.17509, the two gradients of its score.

    Args:
        model: a live model or a local model folder.
        tokenizer: a fast tokenizer, or an ``Encoder`` where template or length limit matter; None
            for pre-tokenised records.
        forget: a path, a data set, or a list of dicts or records.
        retain: the same.
        path: write the store into this folder; None keeps it in memory.
        engine: ``whole`` (the model in memory), or ``auto``.
        retain_records: how many retain records to use, drawn by (seed, id) without replacement;
            None takes 4 per forget record, at most all.
        batch_tokens: padded tokens per backward pass. Changes speed, never the result.
        store_dtype: ``float32`` or ``bfloat16``.
        seed: of the draw of retain records.
        precision: of the matrix products: ``float32``, or ``bfloat16`` (autocast, about 1 % off).
        overlap: ``error``, or ``allow`` records that stand in both sets.

    Returns:
        The store; masks of any score, gamma and ratio come from it without the model.
    """
    encoder = as_encoder(tokenizer)
    choose(DTYPES, store_dtype, "store_dtype")
    kept = read_records(retain, name="retain", seed=seed)
    gone = read_records(forget, name="forget", seed=seed)
    check_disjoint(gone, kept, allow=overlap == "allow")
    count = min(len(kept), 4 * len(gone) if retain_records is None else retain_records)
    if count < 1:
        raise WagleError(f"retain_records is {retain_records}; it must be at least 1")
    chosen = sorted(order(seed, "retain gradient", [r.id for r in kept])[:count])
    sets = {
        "forget": encoder.encode(gone),
        "retain": encoder.encode([kept[i] for i in chosen]),
    }
    name = "whole" if engine == "auto" else engine
    run = choose(ENGINES, name, "engine")
    folder = None if isinstance(model, PreTrainedModel) else Path(model)
    live = model if isinstance(model, PreTrainedModel) else load_model(model)
    longest = max(len(t.ids) for tokens in sets.values() for t in tokens)
    check_length(live, longest, "the longest record")
    return build_store(
        live,
        folder,
        run(live, sets, batch_tokens, precision),
        path=path,
        store_dtype=store_dtype,
        details={
            "engine": name,
            "precision": precision,
            "seed": seed,
            "template": encoder.describe(),
            "records": {key: [t.id for t in tokens] for key, tokens in sets.items()},
        },
    )

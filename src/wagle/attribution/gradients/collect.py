"""From a model and two sets of records to a gradient store."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.attribution.gradients.engines import choose_engine, compute
from wagle.attribution.gradients.passes import Job, Pass, plan_passes, transposed
from wagle.attribution.gradients.sink import Sink
from wagle.attribution.quantities import COLLECTED
from wagle.attribution.store import FORMAT, GradientStore, weight_stamps
from wagle.data.draws import subset
from wagle.data.overlap import check_disjoint
from wagle.data.reading import read_records
from wagle.data.records import Source
from wagle.data.tokens import Encoder, Tokens, as_encoder
from wagle.model.loading import empty_model
from wagle.model.structure import DTYPES, check_ids, check_length, model_folder
from wagle.model.weights import Weights, fingerprint
from wagle.system.errors import DiskFull, WagleError, choose
from wagle.system.files.atomic import check_space, part_of, resumable_folder, write_json
from wagle.system.files.seals import content_digest
from wagle.system.files.secrets import keyed_digest, private_folder, salt
from wagle.system.files.tensors import save_tensors
from wagle.system.processes import group
from wagle.system.processes.group import local_device
from wagle.system.processes.leading import together

DEFAULT = ("grad_forget", "grad_retain")


def gradients(
    model: PreTrainedModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | Encoder | None,
    forget: Source,
    retain: Source | None,
    *,
    path: str | Path | None = None,
    engine: str = "auto",
    retain_records: int | None = None,
    batch_tokens: int = 512,
    store_dtype: str = "float32",
    seed: int = 0,
    precision: str = "float32",
    overlap: str = "error",
    quantities: Sequence[str] = DEFAULT,
    dtype: str = "auto",
    device: str = "auto",
    attention: str = "auto",
    shard: bool = False,
    trust_remote_code: bool = False,
) -> GradientStore:
    """Compute the gradients of the mean loss on the forget set and on the retain set.

    Per set, d/d(weight) of the mean over records of the mean NLL (nats) over scored tokens;
    float32, dropout off. Source: WAGLE, arXiv 2410.17509, the two gradients of its score.

    Args:
        model: a live model (for a ``peft`` model, the gradients are its adapter's) or a local model
            folder.
        tokenizer: a fast tokenizer, or an ``Encoder`` if template or length limit matter; None for
            pre-tokenised records.
        forget: a path, a data set, or a list of dicts or records.
        retain: the same; None if no quantity is measured on it.
        path: write the store to this folder; None keeps it in memory. After a kill the same call
            resumes where it stopped, and a finished store of the same call is simply opened.
        engine: ``whole`` (the model in memory), ``stream`` (one block in memory; needs a folder),
            or ``auto``: ``whole`` if it fits.
        retain_records: how many retain records to use, drawn by (seed, id) without replacement;
            None means 4 per forget record, at most all.
        batch_tokens: padded tokens per backward pass. Changes speed, never the result.
        store_dtype: ``float32`` or ``bfloat16``.
        seed: the seed for drawing retain records.
        precision: for matrix products: ``float32``, or ``bfloat16`` (autocast, about 1 % off).
        overlap: ``error``, or ``allow`` records that are in both sets.
        quantities: what to collect per weight, of ``grad_forget``, ``grad_retain``,
            ``grad_refusal`` (the forget questions answered by refusals), ``square_retain`` (mean
            over records of the squared gradient), ``fisher_retain`` (the same over micro-batches
            of four) and ``input_square`` (the inputs of linear layers, for Wanda).
        dtype: how a folder's weights are held, ``float32`` or ``bfloat16``; ``auto`` keeps the
            dtype in which they are stored.
        device: where a folder's model computes, ``cpu`` or ``cuda``; ``auto`` takes what is there.
        attention: ``eager``, ``sdpa`` or ``auto``, for a folder.
        shard: hold a folder's model in shards, one for each of several processes (FSDP2); each
            writes its part of the store. On one process it makes no difference.
        trust_remote_code: as in ``load_model``, for a folder.

    Returns:
        The store; it yields masks for any score, gamma and ratio without the model.

    Raises:
        WagleError: sets that overlap, records too long for the model, a loss or gradient that is
            not finite, too little disk space, a store of something else at ``path``.
    """
    choose(DTYPES, store_dtype, "store_dtype")
    wanted = _in_order(quantities)
    encoder = as_encoder(tokenizer)
    sets = _token_sets(encoder, forget, retain, retain_records, seed, overlap, wanted)
    source = model if isinstance(model, nn.Module) else model_folder(model)
    structure = (
        source
        if isinstance(source, nn.Module)
        else empty_model(source, trust_remote_code=trust_remote_code)
    )
    _check_lengths(structure, sets)
    job = _job(source, batch_tokens, precision, dtype, device, attention)
    job = replace(job, trust=trust_remote_code)
    if shard and group.several():
        _check_sharded(source, path, engine)
        job = replace(job, shard=True)
    name = "whole" if job.shard else choose_engine(engine, source, job, in_memory=path is None)
    metadata: dict[str, Any] = {
        **_about(source, structure, job),
        "quantities": wanted,
        "dtype": store_dtype,
        "engine": name,
        "seed": seed,
        "template": encoder.describe(),
        "records": {key: [t.id for t in tokens] for key, tokens in sets.items()},
    }
    work = _Work(source, plan_passes(wanted, sets), job, metadata)
    return _in_memory(work) if path is None else _in_folder(work, Path(path))


def _about(source: PreTrainedModel | Path, structure: PreTrainedModel, job: Job) -> dict[str, Any]:
    """What a store says of its format, its model and how it was computed."""
    return {
        "format": FORMAT,
        "versions": {"wagle": version("wagle"), "torch": torch.__version__},
        "model": _about_model(source),
        "reduction": "mean over records of the mean over scored tokens",
        "parameters": _shapes(structure),
        "transposed": transposed(structure),
        "model_dtype": job.dtype,
        "precision": job.precision,
    }


def _in_folder(work: _Work, path: Path) -> GradientStore:
    """The store in a folder, which may exist already; its records are named by keyed digests."""
    done = (path / "store.json").is_file()
    key = group.from_main(_key(path if done else part_of(path)) if group.rank() == 0 else None)
    if key is not None:
        work.metadata["records"] = {
            name: [keyed_digest(key, [id]) for id in ids]
            for name, ids in work.metadata["records"].items()
        }
    return _finished(path, work.metadata) if done else _on_disk(work, path)


def _check_sharded(source: PreTrainedModel | Path, path: str | Path | None, engine: str) -> None:
    """Refuse what cannot be done with a model in shards."""
    if isinstance(source, nn.Module):
        raise WagleError("a live model cannot be sharded here; give its folder")
    if path is None:
        raise WagleError("the gradients of a sharded model go to a folder; give path=")
    if engine == "stream":
        raise WagleError(
            "engine stream holds one block, and has no use for shards; leave out shard, or the "
            "engine"
        )


def _key(folder: Path) -> bytes | None:
    """The key of the digests that name records in a store; None for an old one, with plain ids."""
    old = (folder / "store.json").is_file() and not (folder / "salt").is_file()
    return None if old else salt(private_folder(folder))


def _in_order(quantities: Sequence[str]) -> list[str]:
    """The requested quantities, in the order of the table."""
    for quantity in quantities:
        choose(COLLECTED, quantity, "quantity")
    return [q for q in COLLECTED if q in set(quantities)]


def _check_lengths(model: PreTrainedModel, sets: Mapping[str, Sequence[Tokens]]) -> None:
    longest = max((len(t.ids) for tokens in sets.values() for t in tokens), default=0)
    check_length(model, longest, "the longest record")
    check_ids(model, (t.ids for tokens in sets.values() for t in tokens))


def _about_model(source: PreTrainedModel | Path) -> dict[str, Any]:
    """Which model it is, and what identifies its files as long as they are unchanged."""
    return {
        "fingerprint": fingerprint(source),
        "folder": str(source.absolute()) if isinstance(source, Path) else None,
        "files": weight_stamps(source) if isinstance(source, Path) else None,
    }


def _shapes(model: PreTrainedModel) -> list[list[Any]]:
    """The name and shape of every parameter that gets a gradient."""
    return [[n, list(p.shape)] for n, p in model.named_parameters() if p.requires_grad]


def _finished(path: Path, wanted: Mapping[str, Any]) -> GradientStore:
    """The store that already exists, if it is the one that is wanted."""
    store = GradientStore.open(path)
    found = store.metadata
    if store.model_fingerprint != wanted["model"]["fingerprint"]:
        what = "another model"
    elif found["records"] != wanted["records"] or found.get("template") != wanted["template"]:
        what = "other data"
    else:
        same = {
            key: found.get(key) == wanted[key] for key in wanted if key not in ("versions", "model")
        }
        different = [key for key, equal in same.items() if not equal]
        if not different:
            return store
        what = f"another {different[0]} ({str(found.get(different[0]))[:80]})"
    raise WagleError(f"{path} holds a gradient store of {what}; remove it, or choose another path")


def _token_sets(
    encoder: Encoder,
    forget: Source,
    retain: Source | None,
    retain_records: int | None,
    seed: int,
    overlap: str,
    quantities: Sequence[str],
) -> dict[str, list[Tokens]]:
    """The tokens of every set that the quantities need."""
    gone = read_records(forget, name="forget", seed=seed)
    if retain is None and any(COLLECTED[q].set == "retain" for q in quantities):
        what = next(q for q in quantities if COLLECTED[q].set == "retain")
        raise WagleError(f"{what} is measured on a retain set; give one")
    sets = {"forget": encoder.encode(gone)}
    if any(COLLECTED[q].set == "refusal" for q in quantities):
        sets["refusal"] = [encoder.replaced(record, record.refusal) for record in gone]
    if retain is None:
        return sets
    kept = read_records(retain, name="retain", seed=seed)
    check_disjoint(gone, kept, allow=overlap == "allow")
    count = min(len(kept), 4 * len(gone) if retain_records is None else retain_records)
    if count < 1:
        raise WagleError(f"retain_records is {retain_records}; it must be at least 1")
    chosen = subset(seed, "retain gradient", [r.id for r in kept], count)
    return {**sets, "retain": encoder.encode([kept[i] for i in chosen])}


def _job(
    source: PreTrainedModel | Path,
    batch_tokens: int,
    precision: str,
    dtype: str,
    device: str,
    attention: str,
) -> Job:
    choose(DTYPES, precision, "precision")
    if isinstance(source, nn.Module):
        held = "bfloat16" if source.dtype == torch.bfloat16 else "float32"
        return Job(batch_tokens, precision, held, str(source.device), attention)
    if dtype == "auto":
        weights = Weights(source)
        dtype = "bfloat16" if weights.dtype == torch.bfloat16 else "float32"
        weights.close()
    choose(DTYPES, dtype, "dtype")
    if device == "auto":
        device = local_device().type
    return Job(batch_tokens, precision, dtype, device, attention)


class _Work(NamedTuple):
    """What to compute, and the metadata to store with it."""

    source: PreTrainedModel | Path
    passes: Sequence[Pass]
    job: Job
    metadata: dict[str, Any]

    def run(self, sink: Sink) -> None:
        """Have the engine compute it, on all processes."""
        together(compute, self.metadata["engine"], self.source, self.passes, self.job, sink)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which gradients are stored."""
        return DTYPES[self.metadata["dtype"]]


def _in_memory(work: _Work) -> GradientStore:
    sink = Sink(None, work.dtype)
    work.run(sink)
    if isinstance(work.source, nn.Module):
        sink.tensors["weight"] = _copy(work.source)
    return GradientStore(work.metadata, sink.tensors, {})


def _copy(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {n: p.detach().cpu().clone() for n, p in model.named_parameters() if p.requires_grad}


def _on_disk(work: _Work, path: Path) -> GradientStore:
    need = store_bytes(work.metadata)
    try:
        if group.rank() == 0:
            _write_store(work, path, need)
        else:  # rank 0 makes the folder and writes the store
            work.run(Sink(group.from_main(path), work.dtype, {"format": FORMAT}))
    except DiskFull as error:
        raise DiskFull(f"{error} (the gradient store needs {need / 1e9:.2f} GB)") from error
    group.wait()
    return GradientStore.open(path)


def _write_store(work: _Work, path: Path, need: int) -> None:
    with resumable_folder(path, {**work.metadata, "job": asdict(work.job)}) as part:
        written = sum(file.stat().st_size for file in part.iterdir())
        check_space(
            path, need - written, "the gradient store", "halve it with store_dtype: bfloat16"
        )
        work.run(Sink(group.from_main(part), work.dtype, {"format": FORMAT}))
        if isinstance(work.source, nn.Module):
            file = part / "weight-00000.safetensors"
            save_tensors(file, _copy(work.source), {"format": FORMAT}, digest=True)
        digest = content_digest(work.metadata)
        write_json(part / "store.json", {**work.metadata, "digest": digest})


def store_bytes(metadata: Mapping[str, Any]) -> int:
    """How much disk a store takes: gradients, a live model's weights, sums to resume from."""
    count = sum(math.prod(shape) for _, shape in metadata["parameters"])
    dense = [q for q in metadata["quantities"] if COLLECTED[q].kind != "inputs"]
    need: int = len(dense) * count * DTYPES[metadata["dtype"]].itemsize
    if metadata["model"]["folder"] is None:
        need += count * DTYPES[metadata["model_dtype"]].itemsize
    if metadata["engine"] == "whole" and dense:
        need += 4 * count
    return need

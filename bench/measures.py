"""The measurements themselves; each runs in its own process and gives plain figures.

``bench/rows.py`` compares them with their bounds. Seconds exclude imports and, if a live model is
attributed, its loading. To add one: a function here, its entry in MEASURES.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

import wagle
from bench.measure import Memory, disk_rates, forget_pages, matmul_rate, moved, say, timed
from bench.models import make_folder, settings_of
from bench.patches import MEASURES as PATCHES
from bench.rows import DEPTHS, STEPS
from bench.setup import SCORED, TOKENS, Setup, encoder_of, random_sets, record_sets
from wagle.data.batches import collate
from wagle.data.tokens import Tokens
from wagle.model.loading import load_model, load_tokenizer

Figures: TypeAlias = dict[str, Any]
RATIOS = [0.1, 0.2, 0.4, 0.6, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0]
BATCH_TOKENS = 448  # per backward pass: as fast as 512, and 0.1 GB less
MATMUL_ROWS = 496  # 8 records of 62 tokens


def prepare(setup: Setup) -> Figures:
    """A copy of the model as a bfloat16 folder."""
    model = load_model(setup.model, dtype="bfloat16")
    model.save_pretrained(setup.at("small", "model"))
    load_tokenizer(setup.model).save_pretrained(setup.at("small", "model"))
    return {"weights": model.num_parameters()}


# ---------------------------------------------------------------------------------------------
# The bound: what the machine achieves without wagle


def _plain_pass(model: PreTrainedModel, tokens: Sequence[Tokens]) -> None:
    batch = collate(tokens, range(len(tokens)), multiple=1)
    labels = batch["input_ids"].masked_fill(~batch["scored"], -100)
    model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels
    ).loss.backward()
    model.zero_grad(set_to_none=True)


def bare(setup: Setup) -> Figures:
    """Real tokens per second of ``model(**batch).loss.backward()`` by batch size.

    bfloat16 weights, full logits, default attention; each set sorted by length, which minimises
    padding. Each batch size is measured twice, and the better result counts.
    """
    model = load_model(setup.model, dtype="bfloat16")
    encoder = encoder_of(setup)
    sets = [
        sorted(encoder.encode(records), key=lambda t: -len(t.ids))
        for records in record_sets(setup, setup.size.records)
    ]
    real = sum(len(t.ids) for tokens in sets for t in tokens)
    _plain_pass(model, sets[0][:1])  # warm up

    def all_records(size: int) -> None:
        for tokens in sets:
            for start in range(0, len(tokens), size):
                _plain_pass(model, tokens[start : start + size])

    rates = {}
    for size in setup.size.sizes:
        rates[str(size)] = real / min(timed(partial(all_records, size))[1] for _ in range(2))
    return {"rates": rates, "best": max(rates.values()), "real_tokens": real}


def published(setup: Setup) -> Figures:
    """What the published code would cost on this machine, in plain torch.

    Records padded to 512 tokens one at a time, gradients added in the dtype of the weights; all
    scores in one tensor, sorted and ranked, and a bool mask of each ratio written with torch.
    """
    model = load_model(setup.at("small", "model"), dtype="bfloat16")
    encoder = encoder_of(setup)
    sums = []

    def passes() -> None:
        for records in record_sets(setup, setup.size.records):
            for one in encoder.encode(records):
                batch = collate([one], [0], multiple=setup.size.padded)
                labels = batch["input_ids"].masked_fill(~batch["scored"], -100)
                mask = batch["attention_mask"]
                model(batch["input_ids"], attention_mask=mask, labels=labels).loss.backward()
            sums.append([p.grad for p in model.parameters()])
            model.zero_grad(set_to_none=True)

    def masks() -> None:
        parts = zip(model.parameters(), *sums, strict=True)
        scores = torch.cat([((p - r / 1e-3) * f).abs().detach().view(-1) for p, f, r in parts])
        rank = scores.argsort(descending=True).argsort()
        sizes = [p.numel() for p in model.parameters()]
        names = [name for name, _ in model.named_parameters()]
        for ratio in RATIOS:
            chosen = (rank < int(len(rank) * ratio)).split(sizes)
            torch.save(dict(zip(names, chosen, strict=True)), setup.at("small", "published.pt"))

    with Memory() as memory:
        took, sorting = timed(passes)[1], timed(masks)[1]
    setup.at("small", "published.pt").unlink()
    return {"gradients": took, "masks": sorting, **memory.figures()}


# ---------------------------------------------------------------------------------------------
# The demo model


def _gradients(
    setup: Setup, model: PreTrainedModel | Path, engine: str, path: Path | None
) -> wagle.GradientStore:
    forget, retain = record_sets(setup, setup.size.records)
    return wagle.gradients(
        model,
        encoder_of(setup),
        forget,
        retain,
        engine=engine,
        retain_records=len(retain),
        path=path,
        device="cpu",
        batch_tokens=BATCH_TOKENS,
        attention="eager",
    )


def _live(setup: Setup) -> PreTrainedModel:
    """The bfloat16 model in memory, warmed up like the plain backward pass.

    It uses eager attention, which is faster for records this short.
    """
    model = load_model(setup.at("small", "model"), dtype="bfloat16", attention="eager")
    encoder = encoder_of(setup)
    _plain_pass(model, encoder.encode(record_sets(setup, 1)[0]))
    return model


def _masks(store: wagle.GradientStore, path: Path, **settings: Any) -> tuple[wagle.Mask, Figures]:
    """Make and write a ten-ratio mask, and report the seconds and bytes of both."""
    mask, selection = timed(lambda: wagle.Mask.from_scores(store, ratio=RATIOS, **settings))
    _, writing = timed(lambda: mask.save(path))
    return mask, {
        "selection": selection,
        "writing": writing,
        "mask_bytes": path.stat().st_size,
        "weights": mask.candidates,
        "gamma": mask.metadata["settings"]["gamma"],
    }


def whole(setup: Setup) -> Figures:
    """Records to a ten-ratio mask in one process: model, store and mask in memory."""
    with Memory() as memory:
        model = _live(setup)
        store, took = timed(lambda: _gradients(setup, model, "whole", None))
        figures = _masks(store, setup.at("small", "whole.mask"))[1]
    return {"gradients": took, **figures, **memory.figures()}


def whole_disk(setup: Setup) -> Figures:
    """The gradients of ``whole`` again, with the store written to disk; and the disk alone."""
    model, path = _live(setup), setup.at("small", "whole")
    took = timed(lambda: _gradients(setup, model, "whole", path))[1]
    size = sum(file.stat().st_size for file in path.rglob("*"))
    shutil.rmtree(path)
    return {"gradients": took, "store_bytes": size, "disk": disk_rates(path.parent, size)}


def stream(setup: Setup) -> Figures:
    """Records to a ten-ratio mask from the bfloat16 folder, the store on disk."""
    with Memory() as memory, moved() as gone:
        folder, path = setup.at("small", "model"), setup.at("small", "store")
        store, took = timed(lambda: _gradients(setup, folder, "stream", path))
        figures = _masks(store, setup.at("small", "stream.mask"))[1]
    return {"gradients": took, **figures, **memory.figures(), "moved": gone}


def stream_memory(setup: Setup) -> Figures:
    """The same with the store in memory: the time of ``stream`` without writing."""
    folder = setup.at("small", "model")
    store, took = timed(lambda: _gradients(setup, folder, "stream", None))
    return {"gradients": took, **_masks(store, setup.at("small", "memory.mask"))[1]}


def rescore(setup: Setup) -> Figures:
    """Another gamma and ratio from the store that ``stream`` wrote, in this fresh process."""

    def work() -> wagle.Mask:
        store = wagle.GradientStore.open(setup.at("small", "store"))
        return wagle.Mask.from_scores(store, gamma=1e-3, ratio=0.05)

    mask, took = timed(work)
    return {"seconds": took, "selected": mask.count}


def selection(setup: Setup) -> Figures:
    """Ten ratios from a store in memory, gamma given, with the mask written: best of three."""
    model = _live(setup)
    forget, retain = record_sets(setup, setup.size.few)
    tokenizer = encoder_of(setup)
    store = wagle.gradients(
        model, tokenizer, forget, retain, engine="whole", retain_records=len(retain)
    )
    path = setup.at("small", "selection.mask")
    gamma = _masks(store, path)[1]["gamma"]
    runs = [_masks(store, path, gamma=gamma)[1] for _ in range(3)]
    return min(runs, key=lambda run: float(run["selection"] + run["writing"]))


def stream_equal(setup: Setup) -> Figures:
    """How far the two engines are apart on the float32 folder, by parameter.

    The norm of the difference over the norm of the gradient; a gradient below a millionth of the
    whole set's norm is measured against that norm.
    """
    forget, retain = record_sets(setup, setup.size.few)
    tokenizer = encoder_of(setup)
    one, other = (
        wagle.gradients(
            setup.model,
            tokenizer,
            forget,
            retain,
            engine=engine,
            retain_records=len(retain),
            device="cpu",
        )
        for engine in ("whole", "stream")
    )
    apart = {q: _apart(one, other, q) for q in ("grad_forget", "grad_retain")}
    worst = max((value, name) for found in apart.values() for name, value in found.items())
    return {"worst": worst[0], "parameter": worst[1]}


def _apart(one: wagle.GradientStore, other: wagle.GradientStore, quantity: str) -> dict[str, float]:
    norms, differences = {}, {}
    for name in one.shapes:
        a, b = (s.read(quantity, name, 0, s.size(name)).double() for s in (one, other))
        norms[name], differences[name] = float(a.norm()), float((a - b).norm())
    total = sum(norm**2 for norm in norms.values()) ** 0.5
    return {
        name: differences[name] / (norm if norm > 1e-6 * total else total)
        for name, norm in norms.items()
    }


# ---------------------------------------------------------------------------------------------
# Models made for these measurements


def make_model(setup: Setup, shape: str, folder: str) -> Figures:
    """Write the folder of a random model."""
    with Memory() as memory:
        took = timed(lambda: make_folder(shape, setup.at(folder, "model")))[1]
    say(f"made {shape} in {took:.0f} s")
    return {"seconds": took, **memory.figures()}


def stream_random(
    setup: Setup, shape: str, folder: str, count: int, store_dtype: str = "float32"
) -> Figures:
    """Gradients of ``count`` + ``count`` random records, block by block, the store on disk."""
    model = setup.at(folder, "model")
    forget, retain = random_sets(shape, count)
    forget_pages(model)
    with Memory() as memory, moved() as gone:
        store, took = timed(
            lambda: wagle.gradients(
                model,
                None,
                forget,
                retain,
                engine="stream",
                retain_records=count,
                path=setup.at(folder, "store"),
                store_dtype=store_dtype,
                device="cpu",
            )
        )
    say(f"{shape}: gradients in {took:.0f} s")
    return {
        "gradients": took,
        **memory.figures(),
        "moved": gone,
        "weights": sum(store.size(name) for name in store.shapes),
        "flops": _stream_flops(store, 2 * count),
    }


def _stream_flops(store: wagle.GradientStore, records: int) -> float:
    """The arithmetic of the stream engine: 8 per weight of a block and token, 6 in the head.

    Forward 2, recomputation 2, backward 4; the head, at scored positions only, is not recomputed.
    The embedding is a look-up, and attention itself is ignored (below 1 % at 62 tokens).
    """
    sizes = {n: store.size(n) for n, shape in store.shapes.items() if len(shape) > 1}
    head = sum(size for name, size in sizes.items() if "lm_head" in name)
    blocks = sum(size for name, size in sizes.items() if ".layers." in name)
    return float(records * (8 * blocks * TOKENS + 6 * head * SCORED))


def rates(setup: Setup, shape: str) -> Figures:
    """The bare machine: a bfloat16 matrix product of the model's shape, and the disk."""
    settings = settings_of(shape)
    flops = matmul_rate(MATMUL_ROWS, settings["hidden_size"], settings["intermediate_size"])
    return {"matmul": flops, "disk": disk_rates(Path(setup.scratch), setup.size.rate_bytes)}


def select_random(setup: Setup, folder: str) -> Figures:
    """Ten-ratio masks from a store on disk: first with gamma auto, then with its value given."""
    with Memory() as memory, moved() as gone:
        store = wagle.GradientStore.open(setup.at(folder, "store"))
        auto = _masks(store, setup.at(folder, "mask"))[1]
        given = _masks(store, setup.at(folder, "mask"), gamma=auto["gamma"])[1]
    return {"auto": auto, "given": given, **memory.figures(), "moved": gone}


def _large(setup: Setup, work: str) -> Figures:
    size = setup.size
    if work == "make":
        return make_model(setup, size.large, "large")
    return stream_random(setup, size.large, "large", size.records)


def _largest(setup: Setup, work: str) -> Figures:
    size = setup.size
    if work == "make":
        return make_model(setup, size.largest, "largest")
    found = stream_random(setup, size.largest, "largest", size.largest_records, "bfloat16")
    return {**found, "rates": rates(setup, size.largest)}  # in this process, after the peak


def _depth(setup: Setup, blocks: int, work: str) -> Figures:
    shape, folder = f"{setup.size.depth}-{blocks}", f"depth-{blocks}"
    if work == "make":
        return make_model(setup, shape, folder)
    return stream_random(setup, shape, folder, setup.size.few, "bfloat16")


def _steps(setup: Setup, objective: str, ratio: float) -> Figures:
    from bench.unlearning import masked_step  # brings the Trainer and its memory

    return masked_step(setup, objective, ratio)


def _plain_step(setup: Setup) -> Figures:
    from bench.unlearning import plain_step

    return plain_step(setup)


def _step_7b(setup: Setup) -> Figures:
    from bench.unlearning import step_7b

    return step_7b(setup)


MEASURES: dict[str, Callable[[Setup], Figures]] = {  # in the order in which they run
    "prepare": prepare,
    "bare": bare,
    "whole": whole,
    "stream_memory": stream_memory,
    "bare_again": bare,
    "published": published,
    "whole_disk": whole_disk,
    "stream": stream,
    "rescore": rescore,
    "selection": selection,
    "stream_equal": stream_equal,
    "step_plain": _plain_step,
    **{
        f"step_{objective}_{ratio:g}": partial(_steps, objective=objective, ratio=ratio)
        for objective, ratio in STEPS
    },
    "step_plain_again": _plain_step,
    **PATCHES,
    **{
        f"{work}_depth_{blocks}": partial(_depth, blocks=blocks, work=work)
        for blocks in DEPTHS
        for work in ("make", "stream")
    },
    "make_1b": partial(_large, work="make"),
    "stream_1b": partial(_large, work="stream"),
    "select_1b": partial(select_random, folder="large"),
    "make_7b": partial(_largest, work="make"),
    "stream_7b": partial(_largest, work="stream"),
    "select_7b": partial(select_random, folder="largest"),
    "step_7b": _step_7b,
}


def main(name: str, asked: str, answered: str) -> None:
    """Run one measurement and write its figures."""
    transformers_logging.disable_progress_bar()
    setup = Setup(**json.loads(Path(asked).read_text()))
    Path(answered).write_text(json.dumps(MEASURES[name](setup)))


if __name__ == "__main__":
    main(*sys.argv[1:])

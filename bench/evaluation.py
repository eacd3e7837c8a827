"""The TOFU evaluation of a model, with wagle's engine and with a straightforward one.

    python -m bench.evaluation --data FOLDER            # the demo model; --rows 20 for a quick look

Both ask the same requests of the same model in float32: forget10, 300 retain records, 100 real
authors, 117 world facts, all figures, greedy answers of up to 128 new tokens. The straightforward
one uses plain ``model(**batch)`` and ``generate`` in batches of 16, padded, in order: nothing is
shared, sorted or left out. The figures must be the same, and the time at most a third.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from wagle.data.tokens import Encoder
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import (
    Answers,
    Greedy,
    Likelihood,
    LikelihoodAnswer,
    TextAnswer,
)
from wagle.evaluation.benchmarks.tofu.task import tofu
from wagle.evaluation.figures import Measured
from wagle.model.loading import load_model, load_tokenizer, resolve_model
from wagle.system.errors import WagleError

BATCH = 16
BOUND = 3.0  # straightforward time over ours, at least


class Tokens:
    """Counts the tokens that go through a model, padding included."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.count = 0
        self.handle = model.get_input_embeddings().register_forward_pre_hook(self._add)

    def _add(self, _: object, inputs: tuple[torch.Tensor, ...]) -> None:
        self.count += inputs[0].numel()


def plain_likelihoods(
    model: PreTrainedModel, requests: Sequence[Likelihood]
) -> dict[Likelihood, LikelihoodAnswer]:
    """Batches of 16 in order, padded on the right; every sequence goes through the head whole."""
    found = {}
    for start in range(0, len(requests), BATCH):
        batch = requests[start : start + BATCH]
        rows = [[*r.context, *r.continuation] for r in batch]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        logs = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
        for row, request in enumerate(batch):
            place = slice(len(request.context) - 1, len(rows[row]) - 1)
            target = torch.tensor(request.continuation)
            nll = -logs[row, place].gather(-1, target.unsqueeze(-1)).squeeze(-1)
            hit = logs[row, place].argmax(-1) == target
            keep = torch.tensor(request.scored or (True,) * len(target))
            found[request] = LikelihoodAnswer(nll.double()[keep], hit[keep])
    return found


def plain_answers(
    model: PreTrainedModel, requests: Sequence[Greedy], stop_ids: Sequence[int]
) -> dict[Greedy, TextAnswer]:
    """Batches of 16 in order, padded on the left, each as long as its longest answer."""
    found = {}
    for start in range(0, len(requests), BATCH):
        batch = requests[start : start + BATCH]
        width = max(len(r.context) for r in batch)
        ids = torch.tensor([[stop_ids[0]] * (width - len(r.context)) + [*r.context] for r in batch])
        mask = torch.tensor([[0] * (width - len(r.context)) + [1] * len(r.context) for r in batch])
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max(r.max_new_tokens for r in batch),
            do_sample=False,
            eos_token_id=list(stop_ids),
            pad_token_id=stop_ids[0],
        )
        for row, request in enumerate(batch):
            said = made[row, width:].tolist()[: request.max_new_tokens]
            end = next((i for i, token in enumerate(said) if token in stop_ids), None)
            found[request] = TextAnswer(tuple(said[:end]), end is not None)
    return found


def largest_difference(one: Measured, other: Measured) -> float:
    """The largest difference of any figure; infinite if they do not have the same figures."""
    most = 0.0
    for name in {*one.figures, *other.figures}:
        ours, theirs = one.figures.get(name, {}), other.figures.get(name, {})
        if ours.keys() != theirs.keys():
            return math.inf
        for metric, figure in ours.items():
            pair = figure.value, theirs[metric].value
            if None in pair:
                most = max(most, 0.0 if pair == (None, None) else math.inf)
            else:
                most = max(most, abs(figure.number - theirs[metric].number))
    return most


def compare(folder: Path, data: str, split: str, rows: int | None) -> dict[str, Any]:
    """Evaluate both ways, one after the other, and report how they differ."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    encoder = Encoder(tokenizer)
    stops = encoder.stop_ids(model.generation_config.eos_token_id)
    task = tofu(encoder, data=data, split=split, rows=rows, max_new_tokens=128)
    counter = Tokens(model)
    began, busy = time.perf_counter(), time.process_time()
    ours = answer_requests(model, task.requests, stop_ids=stops)
    seconds, tokens = time.perf_counter() - began, counter.count
    busy = time.process_time() - busy
    likely = [r for r in task.requests if isinstance(r, Likelihood)]
    greedy = [r for r in task.requests if isinstance(r, Greedy)]
    counter.count = 0
    with torch.no_grad():
        began, plain_busy = time.perf_counter(), time.process_time()
        plain: dict[Any, Any] = {**plain_likelihoods(model, likely)}
        middle, likely_tokens = time.perf_counter(), counter.count
        plain |= plain_answers(model, greedy, stops)
        ended, plain_busy = time.perf_counter(), time.process_time() - plain_busy
    return {
        "requests": {"likelihoods": len(likely), "answers": len(greedy)},
        "distinct": len(ours),
        "wagle": {"seconds": seconds, "cpu_seconds": busy, "tokens": tokens},
        "plain": {
            "seconds": ended - began,
            "cpu_seconds": plain_busy,
            "tokens": counter.count,
            "likelihood_seconds": middle - began,
            "likelihood_tokens": likely_tokens,
        },
        "ratio": (ended - began) / seconds,
        "same_texts": all(plain[r] == ours.text(r) for r in greedy),
        "difference": largest_difference(task.measure(ours), task.measure(Answers(plain))),
        "figures": {
            f"{name}.{metric}": figure.value
            for name, found in task.measure(ours).figures.items()
            for metric, figure in found.items()
        },
    }


def main(options: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="A folder with TOFU's files.")
    parser.add_argument("--model", default="demo", help="A model folder; default the demo model.")
    parser.add_argument("--split", default="forget10")
    parser.add_argument("--rows", type=int, help="Records of every set; default all.")
    parser.add_argument("--json", type=Path, help="Write the numbers to this file too.")
    asked = parser.parse_args(options)
    try:
        found = compare(resolve_model(asked.model), asked.data, asked.split, asked.rows)
    except WagleError as error:
        sys.exit(f"bench: {error}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")
    ours, plain = found["wagle"], found["plain"]
    asked_for = found["requests"]
    print(
        f"requests        {asked_for['likelihoods']} likelihoods, {asked_for['answers']} answers;"
    )
    print(f"                {found['distinct']} distinct")
    print(f"wagle           {ours['seconds']:.0f} s, {ours['tokens']:,} tokens")
    print(f"straightforward {plain['seconds']:.0f} s, {plain['tokens']:,} tokens")
    print(f"ratio           {found['ratio']:.2f} (at least {BOUND})")
    busy = plain["cpu_seconds"] / ours["cpu_seconds"]
    print(
        f"                {busy:.2f} in processor time, which other work on the machine hardly affects"
    )
    print(f"figures         differ by {found['difference']:.1e} at most (at most 1e-5)")
    print(f"greedy answers  {'identical' if found['same_texts'] else 'NOT identical'}")


if __name__ == "__main__":
    main()

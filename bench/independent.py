"""The WAGLE mask a second time, in plain torch: one record at a time, one full sort.

    python bench/independent.py MODEL FORGET.jsonl RETAIN.jsonl GAMMA RATIO MASK.safetensors

Records are lines of {"input_ids": [...], "labels": [...]}, labels unshifted, -100 not scored.
"""

import json
import sys
from fractions import Fraction
from pathlib import Path

import torch


def mean_gradients(model, records):
    """The gradient of the mean over records of the model's own loss, float32, by parameter."""
    named = dict(model.named_parameters())
    total = {name: torch.zeros(p.shape) for name, p in named.items()}
    for record in records:
        model.zero_grad(set_to_none=True)
        ids, labels = (torch.tensor([record[key]]) for key in ("input_ids", "labels"))
        model(input_ids=ids, labels=labels).loss.backward()
        for name, p in named.items():
            if p.grad is not None:
                total[name] += p.grad.float() / len(records)
    model.zero_grad(set_to_none=True)
    return total


def wagle_mask(model, forget, retain, gamma, ratio):
    """Bool tensors by parameter: the floor(ratio * N) largest |(theta - g_r / gamma) g_f|."""
    model.eval()
    gone, kept = mean_gradients(model, forget), mean_gradients(model, retain)
    theta = {name: p.detach().float() for name, p in model.named_parameters()}
    parts = [((theta[n] - kept[n] / gamma) * gone[n]).abs().flatten() for n in theta]
    scores = torch.cat(parts)
    order = scores.argsort(descending=True, stable=True)  # ties: earlier parameter, lower index
    mask = torch.zeros(len(scores), dtype=torch.bool)
    mask[order[: int(Fraction(str(ratio)) * len(scores))]] = True
    pieces = mask.split([t.numel() for t in theta.values()])
    return {n: piece.view(t.shape) for (n, t), piece in zip(theta.items(), pieces, strict=True)}


def main(folder, forget, retain, gamma, ratio, out):
    """Make the mask of a model folder and write it as {parameter: bool tensor}."""
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    sets = [[json.loads(x) for x in Path(p).read_text().splitlines()] for p in (forget, retain)]
    mask = wagle_mask(model, *sets, float(gamma), ratio)
    save_file({name: part.clone() for name, part in mask.items()}, out)
    print(sum(int(part.sum()) for part in mask.values()), "weights selected")


if __name__ == "__main__":
    main(*sys.argv[1:])

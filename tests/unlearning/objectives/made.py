"""Made inputs of objectives: from numbers, or random records that can be batched in any way."""

from __future__ import annotations

import torch

from wagle.model.scoring import Scored, score, sum_per_record
from wagle.unlearning.objectives.entry import FORGET_SIDE, RETAIN_SIDE
from wagle.unlearning.objectives.shapes import Distribution, Hidden

VOCABULARY, WIDTH = 11, 6
SETS = (*FORGET_SIDE, *RETAIN_SIDE)


def scored(*sums, count=10):
    """Records of ``count`` tokens with these summed NLLs, spread evenly; gradients reach the sums."""
    total = torch.tensor(sums, requires_grad=True)
    counts = torch.full((len(sums),), count)
    tokens = (total / count).repeat_interleave(count)
    return Scored(total, total / counts, counts, tokens, torch.zeros(0, dtype=torch.bool))


def of_tokens(*records):
    """Records with these NLLs per token; gradients reach ``token_nll``."""
    nll = torch.tensor([value for record in records for value in record], requires_grad=True)
    length = torch.tensor([len(record) for record in records])
    total = sum_per_record(nll, length)
    return Scored(total, total / length, length, nll, torch.zeros(0, dtype=torch.bool))


def of_logits(logits, target, lengths):
    """What a model with these logits (n, V) says of the tokens (n,) of records of these lengths."""
    longest = torch.arange(max(lengths))
    return score(logits, target, longest < torch.tensor(lengths).unsqueeze(-1))


def top(log_probs, target, k):
    """The k likeliest tokens of each position, the true one among them, and the others' mass."""
    first = log_probs.scatter(-1, target.unsqueeze(-1), torch.inf).topk(k).indices
    others = log_probs.scatter(-1, first, -torch.inf)
    return Distribution(log_probs.gather(-1, first), first, others.logsumexp(-1))


def random_record(generator, length, dtype=torch.float32):
    """One record of every set: logits, those of the original model, tokens, and activations."""

    def draw(rows, columns):
        return torch.randn(rows, columns, generator=generator).mul(3)

    record = {}
    for place, name in enumerate(SETS):
        n = 1 + (length + place) % 4
        record[name] = {
            "logits": draw(n, VOCABULARY).to(dtype).requires_grad_(),
            "reference": draw(n, VOCABULARY),
            "target": torch.randint(VOCABULARY, (n,), generator=generator),
            "hidden": draw(n + 2, WIDTH).requires_grad_(),
            "hidden_ref": draw(n + 2, WIDTH),
        }
    record["control"] = draw(1, WIDTH)
    return record


def batch(records, k=None):
    """All inputs that an objective can ask for, of these records; ``k``: largest only."""
    given = {"control": torch.cat([r["control"] for r in records]), "dual": 2.0}
    for name in SETS:
        joined = {key: torch.cat([r[name][key] for r in records]) for key in records[0][name]}
        lengths = [len(r[name]["target"]) for r in records]
        target, known = joined["target"], joined["reference"].log_softmax(-1)
        positions = torch.tensor([len(r[name]["hidden"]) for r in records])
        given |= {
            name: of_logits(joined["logits"], target, lengths),
            f"{name}_ref": of_logits(joined["reference"], target, lengths),
            f"{name}_tokens": target,
            f"{name}_logits": joined["logits"],
            f"{name}_logits_ref": Distribution(known) if k is None else top(known, target, k),
            f"{name}_hidden": Hidden(joined["hidden"], positions),
            f"{name}_hidden_ref": Hidden(joined["hidden_ref"], positions),
        }
    return given

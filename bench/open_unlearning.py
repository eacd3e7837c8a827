"""OpenUnlearning's probability and truth ratio, reimplemented in plain torch, against wagle's.

    python -m bench.open_unlearning MODEL DATA SPLIT [ROWS]

DATA is a folder with TOFU's files as JSON Lines, SPLIT is such as forget10; ROWS limits every set
to its first records. It prints both figures of every set and the largest difference, which must be
at most 1e-4. It is larger if a model finds all answers very unlikely (mean NLL above 20): the 1e-10
in OpenUnlearning's denominators is reproduced here, and wagle has none.
"""

import json
import sys
from pathlib import Path

import torch

LARGEST = 1e-4
SETS = ("forget", "retain", "real_authors", "world_facts")
EPSILON = 1e-10


def encode(tokenizer, question, answer):
    """The ids of a question, its answer and one EOS, and how many of them are the question's."""
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        head = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False)
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
    else:
        head = f"### Question: {question}\n### Answer: "
        whole = head + answer
    special = not tokenizer.chat_template
    before, ids = (tokenizer(t, add_special_tokens=special)["input_ids"] for t in (head, whole))
    start = 0  # the question's last token may change once an answer follows it
    while start < len(before) and before[start] == ids[start]:
        start += 1
    eos = tokenizer.eos_token_id
    rest = ids[start:]
    rest = rest[: rest.index(eos)] if eos in rest else rest
    return [*ids[:start], *rest, eos], start


@torch.no_grad()
def losses(model, pairs):
    """The mean NLL of every answer in one padded batch of (ids, start)."""
    width = max(len(ids) for ids, _ in pairs)
    rows = [
        {
            "input_ids": [*ids, *[0] * (width - len(ids))],
            "attention_mask": [1] * len(ids) + [0] * (width - len(ids)),
            "labels": [-100] * start + ids[start:] + [-100] * (width - len(ids)),
        }
        for ids, start in pairs
    ]
    batch = {key: torch.tensor([row[key] for row in rows]) for key in rows[0]}
    labels = batch.pop("labels")[:, 1:]
    logits = model(**batch).logits.float()[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return (nll.sum(-1) / (labels != -100).sum(-1)).double()  # unscored positions count 0


def figures(model, tokenizer, folder, split, rows=None):
    """Probability and truth ratio by set; for world sets, the probability among the options."""
    found = {}
    for name in SETS:
        file = Path(folder) / f"{split if name == 'forget' else name}_perturbed.json"
        records = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
        probabilities, ratios = [], []
        for record in records[:rows]:
            world = "paraphrased_answer" not in record
            told = record["answer" if world else "paraphrased_answer"]
            asked = [record["answer"], told, *record["perturbed_answer"]]
            loss = losses(model, [encode(tokenizer, record["question"], a) for a in asked])
            p = torch.exp(-loss)
            probabilities.append(p[0] / (p[0] + p[2:].sum() + EPSILON) if world else p[0])
            ratio = torch.exp(-loss[2:].mean()) / (p[1] + EPSILON)
            forget = torch.minimum(ratio, 1 / (ratio + EPSILON))
            ratios.append(forget if name == "forget" else (1 - ratio).clamp(min=0))
        found[name] = {
            "probability": float(torch.stack(probabilities).mean()),
            "truth_ratio": float(torch.stack(ratios).mean()),
        }
    return found


def main(folder, data, split, rows=None):
    """Print both tools' figures for a model folder and their difference; 1 if it is too large."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    import wagle

    count = None if rows is None else int(rows)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    plain = figures(model, AutoTokenizer.from_pretrained(folder), data, split, count)
    settings = {"data": data, "split": split, "variant": "open_unlearning", "generate": False}
    ours = wagle.evaluate(
        folder, benchmark="tofu", settings=settings | ({"rows": count} if count else {})
    ).summary()
    largest = 0.0
    for name, found in plain.items():
        for metric, value in found.items():
            largest = max(largest, abs(value - ours[name][metric]))
            print(f"{name:<14}{metric:<14}{value:>12.6f}{ours[name][metric]:>12.6f}")
    print(f"largest difference {largest:.2e} (at most {LARGEST:g})")
    return int(largest > LARGEST)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Ground truth: does a score find the weights that hold the knowledge?

    python -m bench.planted --out docs/planted.md --json planted.json

Records are taught only into a random part of the model (``bench/planted_parts.py``); the taught
model is then attributed like any other, and every score is judged by how high it ranks that part.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

import wagle
from bench.measure import say, timed
from bench.planted_parts import KINDS, PARTS, Parts, as_mask, choose_parts, kind_of
from bench.ranking import BINS, TAUGHT, UNTAUGHT, Found, count, rank
from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.scores import SCORES
from wagle.data.tokens import Encoder, Tokens
from wagle.model.demo import demo_model
from wagle.model.loading import load_model, load_tokenizer
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError, choose
from wagle.unlearning.forgetting import forget_probability

Scorer: TypeAlias = Callable[[str], Tensor]
CONTROLS = ("random", "oracle")
TOKENS_PER_SECOND = 300  # of autocast training on two cores, only for the plan
LEARNED = 0.5  # the least forget probability at which there is knowledge to find
ENOUGH, SAME = 0.7, 0.02  # the oracle's minimum AUC; how close an untaught part counts as equal


@dataclass(frozen=True)
class Scale:
    """The sizes of the experiment; a round is ``epochs`` passes, rounds end at ``goal``."""

    records: int = 24
    retain: int = 16
    epochs: int = 4
    rounds: int = 4
    goal: float = 0.9
    learning_rate: float = 5e-4
    batch_size: int = 8


SCALES = {"full": Scale(), "tiny": Scale(4, 4, 3, 2, learning_rate=1e-2)}


@dataclass(frozen=True)
class Planted:
    """One part, taught and searched for.

    Attributes:
        kind: the kind of part.
        seed: of the part and of the training order.
        weights: how many weights the part has, out of how many candidates.
        before: forget probability of the untaught model.
        after: the same for the taught model.
        epochs: how many passes over the records it took.
        changed: how many weights differ afterwards.
        seconds: the total time.
        scores: per score, over all candidates ("all") and by kind of matrix.
    """

    kind: str
    seed: int
    weights: tuple[int, int]
    before: float
    after: float
    epochs: int
    changed: int
    seconds: float
    scores: dict[str, dict[str, Found | None]]

    def verdict(self, score: str) -> str:
        """The remark on a score; nothing if it tells the taught part from others.

        ``no power``: there was no change to find, or the untaught part ranks as high. ``at
        chance``: the taught part ranks no higher than random numbers put it.
        """
        found, oracle = self.scores[score]["all"], self.scores["oracle"]["all"]
        assert found is not None
        assert oracle is not None
        if oracle.auc < ENOUGH or found.untaught >= found.auc - SAME:
            return "no power"
        return "at chance" if found.auc <= 0.5 + SAME else ""


def teach(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[wagle.Record],
    tokens: Sequence[Tokens],
    mask: wagle.Mask,
    seed: int,
    scale: Scale,
) -> tuple[float, int]:
    """Teach ``records`` into ``mask`` until they are likely: forget probability and epochs."""
    training = Training(
        epochs=scale.epochs,
        learning_rate=scale.learning_rate,
        batch_size=scale.batch_size,
        precision="bfloat16",
    )
    probability = 0.0
    for number in range(1, scale.rounds + 1):
        wagle.finetune(
            model,
            tokenizer,
            records,
            mask=mask,
            allow_other_model=number > 1,  # by then it is another: the mask is for the untaught one
            seed=seed + number,
            training=training,
        )
        probability = forget_probability(model, tokens, "bfloat16")
        say(f"epoch {number * scale.epochs}: probability {probability:.3f}")
        if probability >= scale.goal:
            break
    return probability, number * scale.epochs


def _asked(function: Callable[..., Tensor]) -> tuple[list[str], list[str]]:
    """The quantities of a score, and the settings without a default."""
    parameters = inspect.signature(function).parameters.values()
    return (
        [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY],
        [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty],
    )


def _scorer(store: wagle.GradientStore, score: str) -> Scorer:
    """The scores of a parameter, with the settings that a mask by that score would use."""
    function = SCORES[score].function
    quantities, open_settings = _asked(function)
    settings: dict[str, Any] = {}
    if open_settings:
        made = wagle.Mask.from_scores(store, score=score, ratio=0.5, scope="global").metadata
        settings = {name: made["settings"][name] for name in open_settings}

    def scores(name: str) -> Tensor:
        size = store.size(name)
        return function(**{q: store.read(q, name, 0, size) for q in quantities}, **settings)

    return scores


def _scorers(
    store: wagle.GradientStore, model: PreTrainedModel, before: dict[str, Tensor], seed: int
) -> Iterator[tuple[str, Scorer]]:
    """Every score of the package, then the controls."""
    now = dict(model.named_parameters())
    draw = torch.Generator().manual_seed(seed)
    for score in SCORES:
        if score != "random":
            yield score, _scorer(store, score)
    yield "random", lambda name: torch.rand(store.size(name), generator=draw)
    yield "oracle", lambda name: (now[name].detach() - before[name]).abs()


def _search(scorer: Scorer, parts: Parts) -> dict[str, Found | None]:
    counts = {kind: torch.zeros(3, BINS, dtype=torch.int64) for kind in KINDS}
    for name, taught in parts.taught.items():
        labels = taught.to(torch.uint8) * TAUGHT + parts.untaught[name].to(torch.uint8) * UNTAUGHT
        counts[str(kind_of(name))] += count(scorer(name), labels)
    return {"all": rank(sum(counts.values(), torch.zeros(3, BINS, dtype=torch.int64)))} | {
        kind: rank(found) for kind, found in counts.items()
    }


def plant(folder: str, kind: str, seed: int, scale: Scale) -> Planted:
    """Teach the demo's forget set into a part of the model, then look for that part."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    records = wagle.read_records("demo:forget", name="forget", rows=f"0:{scale.records}")
    known = wagle.read_records("demo:general", name="retain")
    tokens = Encoder(tokenizer).encode(records)
    parts = choose_parts(model, kind, seed)
    mask = as_mask(model, parts.taught, kind, seed)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if n in parts.taught}
    start = forget_probability(model, tokens, "bfloat16")
    (after, epochs), taught = timed(
        lambda: teach(model, tokenizer, records, tokens, mask, seed, scale)
    )
    store, attributed = timed(
        lambda: wagle.gradients(
            model,
            tokenizer,
            records,
            known,
            engine="whole",
            retain_records=scale.retain,
            quantities=list(COLLECTED),
            seed=seed,
        )
    )
    say(f"taught in {taught:.0f} s, attributed in {attributed:.0f} s")
    scores, searched = timed(
        lambda: {s: _search(f, parts) for s, f in _scorers(store, model, before, seed)}
    )
    now = dict(model.named_parameters())
    changed = sum(int(torch.count_nonzero(now[n] != old)) for n, old in before.items())
    size = (mask.count, sum(t.numel() for t in parts.taught.values()))
    seconds = taught + attributed + searched
    return Planted(kind, seed, size, start, after, epochs, changed, seconds, scores)


def announce(folder: str, kinds: Sequence[str], seeds: Sequence[int], scale: Scale) -> None:
    """Say what will be computed, and roughly how long it takes, before it starts."""
    encoder = Encoder(load_tokenizer(folder))
    records = encoder.encode(wagle.read_records("demo:forget", rows=f"0:{scale.records}"))
    each = sum(len(t.ids) for t in records)
    most = each * scale.epochs * scale.rounds
    passes = each * 2 + 3 * each * scale.retain // scale.records
    minutes = (most + 3 * passes) / TOKENS_PER_SECOND / 60
    say(
        f"{len(kinds)} kinds x {len(seeds)} seeds; each: {len(records)} records of {each} tokens, "
        f"at most {scale.epochs * scale.rounds} epochs ({most} tokens), {passes} tokens of float32 "
        f"gradients; about {minutes:.1f} minutes at {TOKENS_PER_SECOND} tokens/s"
    )


# ---------------------------------------------------------------------------------------------
# The page

_READ = """# Planted knowledge

Records about invented authors were taught into one part of the model and nowhere else, so it is
known where they are stored. The taught model was then attributed in the ordinary way (forget: the
taught records; retain: world facts that it knows), and every score ranked the weights of the same
kinds of matrix.

How to read the tables: **AUC** is the probability that a weight of the taught part scores higher
than another one (0.5 is chance); **untaught** is the AUC of a part of the same structure that was
not taught; **precision** is the taught share of the top k, where k is the size of the part, next
to **share**, which is what chance gets. `random` and `oracle` (how far a weight actually moved)
are controls. If the oracle stays below 0.7, or the untaught part comes within 0.02 of the taught
one or above it, the row says "no power": no claim about the score follows from it. A row that says
"at chance" means that the taught part ranks no higher than random numbers would put it. A high AUC
says that a score finds where training put the knowledge, not that unlearning there works better.

Scores are compared in 65536 bins of float32; ties count half.
"""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def section(planted: Planted) -> str:
    """One part as Markdown: how it was taught, a row per score, and the result in a sentence."""
    kinds = [k for k in KINDS if planted.scores["oracle"][k] is not None]
    titles = ["score", "AUC", "untaught", "precision", "share", *kinds, ""]
    lines = [" | ".join(titles), " | ".join(["---"] * len(titles))]
    for score, found in planted.scores.items():
        overall = found["all"]
        assert overall is not None
        cells = [overall.auc, overall.untaught, overall.precision, overall.share]
        by_kind = [found[k].auc if found[k] else None for k in kinds]  # type: ignore[union-attr]
        numbers = map(_number, [*cells, *by_kind])
        lines.append(" | ".join([f"`{score}`", *numbers, planted.verdict(score)]))
    size, candidates = planted.weights
    return "\n".join(
        [
            f"\n## {planted.kind}, seed {planted.seed}\n",
            f"{size:,} of {candidates:,} weights; {planted.epochs} epochs; {planted.changed:,} "
            f"weights changed; probability of the taught answers {planted.before:.3f} before, "
            f"{planted.after:.3f} after.\n",
            *(f"| {line} |" for line in lines),
            f"\n{_sentence(planted)}",
        ]
    )


def _sentence(planted: Planted) -> str:
    """What the table says, made from its numbers alone."""
    overall = {s: f["all"] for s, f in planted.scores.items() if s not in CONTROLS and f["all"]}
    best = max(overall, key=lambda s: -1.0 if planted.verdict(s) else overall[s].auc)
    chance = planted.scores["random"]["all"]
    assert chance is not None
    able = sum(not planted.verdict(s) for s in overall)
    if planted.after < LEARNED:
        return f"The records were not learned (probability {planted.after:.3f}): nothing follows."
    if able == 0:
        return f"None of {len(overall)} scores tells the taught part from an untaught one."
    top = overall[best]
    return (
        f"{able} of {len(overall)} scores tell the taught part from an untaught one; the highest is "
        f"`{best}` with an AUC of {top.auc:.3f} (untaught {top.untaught:.3f}, random "
        f"{chance.auc:.3f}) and a precision of {top.precision:.3f} (chance {top.share:.3f})."
    )


def page(found: Sequence[Planted], model: str, scale: Scale) -> str:
    """The whole page of all parts."""
    resolution = max(
        r.resolution for p in found for kinds in p.scores.values() for r in kinds.values() if r
    )
    about = (
        f"Model {model}, {scale.records} taught records, {scale.retain} retain records, AdamW at "
        f"{scale.learning_rate:g} until the probability reaches {scale.goal:g} or "
        f"{scale.epochs * scale.rounds} epochs have passed; seeds "
        f"{sorted({p.seed for p in found})}. "
        f"Binning moves no AUC by more than {resolution:.4f}. Made by `make planted`."
    )
    return "\n".join([_READ, about, *map(section, found), ""])


def as_json(planted: Planted) -> dict[str, Any]:
    """The figures of a part, unrounded."""
    scores = {
        score: {kind: found and found._asdict() for kind, found in kinds.items()}
        for score, kinds in planted.scores.items()
    }
    verdicts = {score: planted.verdict(score) for score in planted.scores}
    return {**vars(planted), "scores": scores, "verdicts": verdicts}


def main(options: Sequence[str] | None = None) -> None:
    """Plant, search, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a float32 Llama folder; default: the demo model")
    parser.add_argument("--kinds", default=",".join(PARTS), help="names, separated by commas")
    parser.add_argument("--seeds", default="0", help="numbers, separated by commas")
    parser.add_argument("--scale", choices=sorted(SCALES), default="full")
    parser.add_argument("--out", type=Path, help="write the page here; default: print it")
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    asked = parser.parse_args(options)
    transformers_logging.disable_progress_bar()
    try:
        _run(asked)
    except WagleError as error:
        sys.exit(f"bench: {error}")


def _run(asked: argparse.Namespace) -> None:
    scale, kinds = SCALES[asked.scale], asked.kinds.split(",")
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    for kind in kinds:
        choose(PARTS, kind, "kind of part")
    folder = asked.model or str(demo_model())
    announce(folder, kinds, seeds, scale)
    found = [plant(folder, kind, seed, scale) for kind in kinds for seed in seeds]
    text = page(found, Path(folder).name, scale)
    if asked.out is None:
        print(text)
    else:
        asked.out.write_text(text, encoding="utf-8")
        say(f"wrote {asked.out}")
    if asked.json is not None:
        asked.json.write_text(json.dumps([as_json(p) for p in found], indent=2) + "\n")


if __name__ == "__main__":
    main()

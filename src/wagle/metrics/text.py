"""Text metrics: what a model wrote against what it should have written, and how well it reads.

Words are runs of letters, digits and underscores in any script, in lower case, except inside
ROUGE and BLEU, whose libraries cut texts in their own way.
To add one, write a function here, its entry in TEXTS, and a test next to the others.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from statistics import harmonic_mean
from typing import TYPE_CHECKING, Literal, NamedTuple

from wagle.metrics.memorization import longest_run
from wagle.metrics.metric import Metric
from wagle.system.errors import WagleError

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU

_ROUGE_WORD = re.compile("[a-z0-9]")


class Rouge(NamedTuple):
    """How much two texts overlap, each 0 to 1; all are 0 if one side has no words."""

    precision: float
    recall: float
    f1: float


@cache
def _scorer(kind: str, stemmer: bool) -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], use_stemmer=stemmer)


def rouge(
    reference: str,
    answer: str,
    *,
    kind: Literal["rougeL", "rouge1"] = "rougeL",
    stemmer: bool = True,
) -> Rouge:
    """ROUGE: the longest common subsequence (``rougeL``) or the common bag (``rouge1``) of words.

    Words are runs of ASCII letters and digits, in lower case; every other character is a separator.
    So accents split words, and a text with no ASCII letter or digit scores 0 even against itself:
    see ``has_rouge_words``.

    Args:
        reference: what should have been written; recall is over its words.
        answer: what was written; precision is over its words.
        kind: the kind of overlap.
        stemmer: compare words of more than three characters by their Porter stem.
    """
    found = _scorer(kind, stemmer).score(reference, answer)[kind]
    return Rouge(float(found.precision), float(found.recall), float(found.fmeasure))


def rouge_l(reference: str, answer: str) -> float:
    """ROUGE-L recall with stemming: the longest common subsequence of words over the reference's.

    An answer loses nothing by rambling, so show ``rouge(...).f1`` next to it.
    """
    return rouge(reference, answer).recall


def has_rouge_words(text: str) -> bool:
    """Whether ROUGE sees a word in ``text``; if not, every ROUGE is 0."""
    return _ROUGE_WORD.search(text.lower()) is not None


@cache
def _bleu(effective_order: bool) -> BLEU:
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise WagleError("BLEU needs sacrebleu: pip install 'wagle[eval]'") from None
    return BLEU(effective_order=effective_order)


def bleu(reference: str, answer: str, how: Literal["sentence", "published"] = "sentence") -> float:
    """BLEU of one text, 0 to 100.

    Args:
        reference: what should have been written.
        answer: what was written.
        how: ``sentence`` leaves out the n-gram orders that a short answer cannot have;
            ``published`` treats the text as a corpus of one, so the score is 0 if the answer has
            fewer than four words, even if they are all right.
    """
    if how == "published":
        return corpus_bleu([reference], [answer])
    return float(_bleu(True).sentence_score(answer, [reference]).score)


def corpus_bleu(references: Sequence[str], answers: Sequence[str]) -> float:
    """BLEU of n answers pooled, 0 to 100: their n-gram counts are added before they are divided."""
    return float(_bleu(False).corpus_score(list(answers), [list(references)]).score)


def words(text: str) -> list[str]:
    """The words of a text in any script, in lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def longest_word_run(reference: str, answer: str) -> int:
    """The longest run of words that both texts share, ignoring case and punctuation."""
    return longest_run(words(reference), words(answer))


def cut_at(text: str, stops: Sequence[str]) -> str:
    """``text`` up to, and without, the earliest match of any of ``stops``.

    Raises:
        WagleError: an empty stop string.
    """
    if not all(stops):
        raise WagleError("a stop string is empty; remove it")
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)]


def token_entropy(text: str) -> float:
    """``-sum f log2 f / log2 n`` over the frequencies of a text's n words, 0 to 1.

    1 if all words differ, 0 if a single one is repeated, and 0 for at most one word.

    Source: Yuan et al. 2024, arXiv 2410.08109, which counts tokens; counting words does not depend
    on the model's tokenizer.
    """
    found = words(text)
    if len(found) <= 1:
        return 0.0
    shares = [count / len(found) for count in Counter(found).values()]
    return abs(math.fsum(share * math.log2(share) for share in shares)) / math.log2(len(found))


def repetition(text: str, order: int = 4) -> float:
    """The share of word n-grams that occurred before; 0 for a text of fewer than n words.

    Args:
        text: what the model wrote.
        order: the n.
    """
    found = words(text)
    grams = [tuple(found[i : i + order]) for i in range(len(found) - order + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def brunet(text: str) -> float:
    """Brunet's index ``N ** (V ** -0.165)`` for N words, V of them distinct: small means rich.

    Raises:
        WagleError: a text without a word.
    """
    found = _some_words(text, "Brunet's index")
    return float(len(found) ** (len(set(found)) ** -0.165))


def honore(text: str) -> float:
    """Honoré's statistic ``100 ln N / (1 - V1/V + 0.1)``: large means rich; 0 for a single word.

    N words, V of them distinct, V1 used exactly once.

    Raises:
        WagleError: a text without a word.
    """
    counts = Counter(_some_words(text, "Honoré's statistic"))
    once = sum(count == 1 for count in counts.values())
    return 100 * math.log(counts.total()) / (1 - once / len(counts) + 0.1)


def _some_words(text: str, what: str) -> list[str]:
    found = words(text)
    if not found:
        raise WagleError(f"{what} needs a text with at least one word; leave empty answers out")
    return found


def language_score(perplexity: float, brunet_index: float, honore_statistic: float) -> float:
    """``HM(1/(1+PPL), 1/(1+BI), HS/(1+HS))``, 0 to 1: how fluent and rich texts are.

    Args:
        perplexity: mean, >= 1; infinity is allowed and gives 0.
        brunet_index: mean, >= 1.
        honore_statistic: mean, >= 0.

    Source: zjunlp/unlearn, its linguistic score.
    """
    rich = honore_statistic / (1 + honore_statistic)
    return float(harmonic_mean([1 / (1 + perplexity), 1 / (1 + brunet_index), rich]))


def closer_look_efficacy(
    probability: float, rouge_recall: float, closer_to_1: float, cosine: float, entailment: float
) -> float:
    """Forget efficacy ``1 - mean(P, ROUGE, 1 - closer_to_1, cosine, entailment)``, 0 to 1.

    Args:
        probability: the probability of the forget answers, per token.
        rouge_recall: ROUGE-L recall of the forget answers.
        closer_to_1: the truth ratio of the forget set, ``mean min(R, 1/R)``.
        cosine: mean of ``max(0, cos)`` between answer and reference, as sentence embeddings.
        entailment: share of answers that entail their reference.

    Source: Yuan et al. 2024, arXiv 2410.08109.
    """
    parts = (probability, rouge_recall, 1 - closer_to_1, cosine, entailment)
    return 1 - math.fsum(parts) / len(parts)


def _rouge_l(expected: str, said: str) -> float | None:
    return rouge_l(expected, said) if has_rouge_words(expected) else None


def _empty(said: str) -> float:
    return float(not said)


def _at_limit(finished: bool) -> float:
    return float(not finished)


TEXTS: dict[str, Metric] = {
    "rouge_l": Metric("recall", _rouge_l, ("expected", "said")),
    "repetition": Metric(
        "share of 4-grams", repetition, ("said",), direction="lower", kept="lower"
    ),
    "token_entropy": Metric(
        "share of the largest possible",
        token_entropy,
        ("said",),
        direction="higher",
        everywhere=True,
    ),
    "empty": Metric(
        "share of answers",
        _empty,
        ("said",),
        direction="lower",
        kept="lower",
        share=True,
        everywhere=True,
    ),
    "at_limit": Metric(
        "share of answers",
        _at_limit,
        ("finished",),
        direction="lower",
        kept="lower",
        share=True,
        everywhere=True,
    ),
}

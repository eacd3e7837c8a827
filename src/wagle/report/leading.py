"""The leading figures: those read first, on a page and in a table."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from wagle.evaluation.figures import FORGOTTEN, OVERALL

HEADLINES = (
    "forget.extraction_strength",
    "forget.exact_memorization",
    "forget.truth_ratio",
    "forget.know",
    "forget.verbmem",
    "forget.verbmem_extraction_strength",
    "forget.verbmem_exact_memorization",
    "forget.knowmem",
    "retain.knowmem",
    "context.accuracy",
    "*.template_mean",
    "*.toxic_rate",
    f"{OVERALL}.model_utility",
    f"{OVERALL}.utility_proxy",
    f"{OVERALL}.forget_quality",
    f"{OVERALL}.privleak",
)
OWN = (  # of the benchmark qa
    "forget.probability",
    "forget.paraphrased",
    "forget.extraction_strength",
    "forget.exact_memorization",
    "forget.know",
    f"{FORGOTTEN}.probability",
    "retain.probability",
    "retain_heldout.probability",
    "general.probability",
    f"{OVERALL}.forget_quality",
    f"{OVERALL}.privleak",
)
_MOST = 8  # leading figures, at most, if a benchmark has none of these


def headlines(
    figures: Iterable[tuple[str, str]], *, own_records: bool = False
) -> list[tuple[str, str]]:
    """The figures of a benchmark that readers see first.

    Args:
        figures: pairs of set and metric.
        own_records: whether they are from ``qa``, which has no composites: its sets lead instead.

    Returns:
        Those in HEADLINES (for ``qa``, in OWN), in that order; else the composites and the figures
        of a group of tasks; else the first figure of every set; at most eight of the latter two.
    """
    known = list(dict.fromkeys(figures))
    leading = OWN if own_records else HEADLINES
    found = [pair for name in leading for pair in known if fnmatchcase(".".join(pair), name)]
    if found:
        return found
    firsts: dict[str, tuple[str, str]] = {}
    for pair in known:
        firsts.setdefault(pair[0], pair)
    # the name of an lm-eval group is the beginning of its tasks' names
    groups = [s for s in firsts if any(other.startswith(f"{s}_") for other in firsts)]
    lead = [pair for pair in known if pair[0] == OVERALL] + [firsts[s] for s in groups]
    return (lead or list(firsts.values()))[:_MOST]

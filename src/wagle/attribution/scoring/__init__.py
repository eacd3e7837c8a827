"""From gradients to masks: scores, their settings, exact selection.

To add a score, write a function in ``scores``, its entry in SCORES at the end of that file, and a
test next to the others in ``tests/attribution/scoring/test_scores.py``. What it reads and its
settings follow from its signature. A choice of weights without a score is an entry in ``unscored``.
"""

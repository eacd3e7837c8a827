"""From gradients to masks: scores, their settings, exact selection.

To add a score: a function in ``scores``, its entry in SCORES at the end of that file, and a test
beside the others in ``tests/attribution/scoring/test_scores.py``. What it reads and its settings
follow from its signature. A choice of weights that no score makes is an entry in ``unscored``.
"""

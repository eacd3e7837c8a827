"""Metrics: pure functions of answers.

A metric of one record is a function and its entry at the end of the same file (``likelihood``,
``memorization`` or ``text``). The entry says which of the record's answers the function takes; that
is all ``qa`` needs to compute it, and the tables, attacks and reports need to show it. So to add a
metric, write a function with its entry, and a test. Three kinds need more:

- one that takes something not in ``Answered`` yet: a field there, and ``questions`` to ask for it;
- one that a verdict should depend on: its name in ``PROBES``, and a higher ``VERSION`` of ``qa``;
- one that a benchmark counts in its own way, or that is computed from many records at once
  (``membership``, ``utility``): the benchmark calls the function itself.
"""

"""Metrics: pure functions of answers.

A metric of one record is a function and its entry at the end of the same file (``likelihood``,
``memorization`` or ``text``): the entry says which of the record's answers the function takes, and
that is all that ``qa`` needs to compute it, and the tables, attacks and reports to show it. So to
add one: a function with its entry, and a test. Three kinds need more:

- one that takes what is not in ``Answered`` yet: a field there, and ``questions`` to ask for it;
- one that a verdict should turn on: its name in ``PROBES``, and a higher ``VERSION`` of ``qa``;
- one that a benchmark counts in its own way, or that is made of many records at once
  (``membership``, ``utility``): the benchmark calls the function itself.
"""

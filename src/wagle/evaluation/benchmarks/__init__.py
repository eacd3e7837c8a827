"""The benchmarks of the field: records to requests, answers to figures.

To add one: a file here and a test. The file, or a package with the files of a large one, has the
benchmark's name and holds a function of that name from an encoder and settings to a ``Task``; its
keywords are the settings, its docstring explains them. Nothing else is to be entered anywhere: the
table ``BENCHMARKS`` lists this folder. So what several benchmarks share is not here, but in
``evaluation/tasks`` and, of those that run through lm-eval, in ``evaluation/harness``.
"""

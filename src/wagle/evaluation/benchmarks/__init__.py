"""The published benchmarks: records to requests, answers to figures.

To add one: a file here and a test. The file, or a package with the files of a large one, has the
benchmark's name and holds a function of that name that makes a ``Task`` from an encoder and
settings; its keywords are the settings, its docstring explains them. Nothing needs to be registered
anywhere else: the table ``BENCHMARKS`` lists this folder. So code that several benchmarks share is
not here but in ``evaluation/tasks`` and, for those that run through lm-eval, in
``evaluation/harness``.
"""

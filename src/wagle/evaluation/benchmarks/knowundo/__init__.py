"""KnowUnDo: its questions and its figures."""

from wagle.evaluation.benchmarks.knowundo.task import knowundo as knowundo

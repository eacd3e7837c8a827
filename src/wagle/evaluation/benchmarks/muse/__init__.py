"""MUSE: its data and its six criteria."""

from wagle.evaluation.benchmarks.muse.task import muse as muse
from wagle.evaluation.benchmarks.muse.task import scalability as scalability
from wagle.evaluation.benchmarks.muse.task import sustainability as sustainability

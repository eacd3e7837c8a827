"""MUSE: its data and its six criteria."""

from wagle.evaluation.benchmarks.muse.curves import scalability as scalability
from wagle.evaluation.benchmarks.muse.curves import sustainability as sustainability
from wagle.evaluation.benchmarks.muse.task import muse as muse

"""The result files and the names of other projects."""

from wagle.evaluation.peers.naming import write_names as write_names

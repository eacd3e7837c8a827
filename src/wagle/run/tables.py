"""The names that a recipe may use, collected from the tables of all rooms."""

from __future__ import annotations

import torch

from wagle.attacks.table import ATTACKS
from wagle.attribution.quantities import COLLECTED
from wagle.attribution.scoring.scores import SCORES
from wagle.data.templates import TEMPLATES
from wagle.evaluation.table import BENCHMARKS
from wagle.metrics.membership import MEMBERSHIP_ATTACKS
from wagle.model.quantization.kinds import FILES, LOADS
from wagle.unlearning.objectives.table import OBJECTIVES
from wagle.unlearning.training.optimizers import OPTIMIZERS
from wagle.unlearning.watching.rules import FIGURES, OF_OPTIONS


def setting_names() -> dict[str, list[str]]:
    """For every ``{table}`` in the text of a setting, the names in that table, in its order.

    Optimisers exclude torch's own, which depend on its version; membership attacks are those that a
    recipe may ask for: ``reference`` is added automatically.
    """
    own = [name for name in OPTIMIZERS if not hasattr(torch.optim, name)]
    return {
        "attacks": list(ATTACKS),
        "benchmarks": list(BENCHMARKS),
        "files": list(FILES),
        "figures": [name for name in FIGURES if name not in OF_OPTIONS],
        "figures_of_options": [name for name in FIGURES if name in OF_OPTIONS],
        "loads": list(LOADS),
        "membership_attacks": [name for name in MEMBERSHIP_ATTACKS if name != "reference"],
        "objectives": list(OBJECTIVES),
        "optimizers": [name for name in own if not isinstance(OPTIMIZERS[name], str)],
        "optimizers_8bit": [name for name in own if isinstance(OPTIMIZERS[name], str)],
        "quantities": list(COLLECTED),
        "scores": list(SCORES),
        "templates": list(TEMPLATES),
    }

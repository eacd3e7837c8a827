"""What published code calls an objective: for the import of its configurations.

Recipes take our own names only. A name says nothing of the settings, and the same word has been
used for different ones (``gamma`` is the retain weight, the forget weight or a margin), so what
imports a configuration has to know its source.
"""

from __future__ import annotations

_WAGLE = {
    "CL": "refusal",
    "CL+FT": "po",
    "CL+KL": "refusal_kl",
    "CUT": "rmu",  # unfinished there
    "FT": "retain_finetune",
    "FT_l1": "l1_sparse",
    "GA": "grad_ascent",
    "GA+FT": "grad_diff",
    "GA+KL": "ga_kl",  # its gamma weighs both terms: -gamma, 1 - gamma
    "KL": "kl",
    "NPO+FT": "npo",  # with beta_token_mean
    "RL": "random_label",
    "l1_sparse": "l1_sparse",
    "l1sparse": "l1_sparse",
    "origin": "none",
}
_BY_SOURCE: dict[str, dict[str, str]] = {
    "closerlook": {
        "GA+GD": "grad_diff",
        "GA+KL": "ga_kl",
        "IDK+AP": "idk_ap",
        "IDK+GD": "po",
        "IDK+KL": "refusal_kl",
        "LLMU": "llmu",
        "ME+GD": "max_entropy",
    },
    "g_effect": {"TNPO": "tnpo", "WGA": "wga", "WTNPO": "tnpo"},  # the last with alpha 1.5
    "jensun": {"JensUn": "jensun"},
    "muse": {"GA": "grad_ascent", "GA_KLR": "ga_kl"},
    "openunlearning": {
        "AltPO": "dpo_alt",
        "CEU": "ce_u",
        "DPO": "dpo",
        "GradAscent": "grad_ascent",
        "GradDiff": "grad_diff",
        "IdkDPO": "dpo",
        "NPO": "npo",
        "PDU": "pdu",
        "RMU": "rmu",
        "SatImp": "satimp",
        "SimNPO": "simnpo",
        "UNDIAL": "undial",
        "WGA": "wga",
    },
    "rmu": {"RMU": "rmu"},
    "simnpo": {"GradDiff": "grad_diff", "NPO": "npo", "SimNPO": "simnpo"},
    "soul": _WAGLE,
    "wagle": _WAGLE,
}

PUBLISHED: dict[tuple[str, str], str] = {
    (source, name): ours for source, names in _BY_SOURCE.items() for name, ours in names.items()
}
"""From (source, its name of an objective) to the name in OBJECTIVES."""

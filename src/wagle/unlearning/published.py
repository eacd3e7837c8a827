"""What published code calls each objective, for importing its configurations.

Recipes take only our own names. A name says nothing about settings, and the same word has meant
different ones (``gamma`` is the retain weight, the forget weight or a margin), so whatever imports
a configuration must know its source.
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
    "GA+KL": "ga_kl",  # its gamma weights both terms: -gamma, 1 - gamma
    "KL": "kl",
    "NPO+FT": "npo",  # with beta_token_mean
    "RL": "random_label",
    "l1_sparse": "l1_sparse",
    "l1sparse": "l1_sparse",
    "origin": "none",
}
_TOFU = {
    "KL": "ga_kl",
    "dpo": "dpo",  # without a retain term
    "grad_ascent": "grad_ascent",
    "grad_diff": "grad_diff",
    "idk": "po",
}
_BY_SOURCE: dict[str, dict[str, str]] = {
    "closerlook": {
        "DPO+GD": "dpo",
        "DPO+KL": "dpo",  # with retain_term kl
        "GA+GD": "grad_diff",
        "GA+KL": "ga_kl",
        "IDK+AP": "idk_ap",
        "IDK+GD": "po",
        "IDK+KL": "refusal_kl",
        "LLMU": "llmu",
        "ME+GD": "max_entropy",
        "NPO+GD": "npo",
        "NPO+KL": "npo",  # with retain_term kl
    },
    "g_effect": {
        "TNPO": "tnpo",
        "WGA": "wga",
        "WTNPO": "tnpo",  # with alpha 1.5
        "ga": "grad_ascent",
        "idk": "refusal",
        "ins_npo": "tnpo",
        "npo": "npo",  # without a retain term
        "rmu_L": "rmu",  # L stands for the layer; with retain_term kl
        "w_ins_npo": "tnpo",  # with its alpha
        "wga": "wga",
    },
    "jensun": {"JensUn": "jensun"},
    "knowundo": {
        "ascent_plus_descent": "grad_diff",
        "ascent_plus_kl_divergence": "ga_kl",
        "gradient_ascent": "grad_ascent",
        "random_label": "random_label_uniform",  # if completely_random; we have no other
    },
    "muse": {
        "GA": "grad_ascent",
        "GA_GDR": "grad_diff",
        "GA_KLR": "ga_kl",
        "NPO": "npo",  # without a retain term
        "NPO_GDR": "npo",
        "NPO_KLR": "npo",  # with retain_term kl
    },
    "npo": {
        **_TOFU,
        "NPO+RT": "npo",
        "dpo_KL": "dpo",  # with retain_term kl
        "dpo_grad_diff": "dpo",
        "npo": "npo",  # without a retain term
        "npo_KL": "npo",  # with retain_term kl
        "npo_grad_diff": "npo",
    },
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
    "smooth": {
        "NPO": "npo",
        "NPO+RS": "npo",  # with wrapper smooth
        "NPO+SAM": "npo",  # with wrapper sam
    },
    "soul": _WAGLE,
    "tofu": _TOFU,
    "wagle": _WAGLE,
}

PUBLISHED: dict[tuple[str, str], str] = {
    (source, name): ours for source, names in _BY_SOURCE.items() for name, ours in names.items()
}
"""From (source, its name for an objective) to the name in OBJECTIVES."""

"""The names that other tools give to figures, and files in their forms."""

import csv
import json

import pytest

from wagle.evaluation.figures import Figure
from wagle.evaluation.peers import write_names
from wagle.evaluation.peers.naming import FORMS, open_unlearning_names, published_names
from wagle.system.errors import WagleError


def figures():
    def figure(number):
        return Figure(number, None, "none")

    sets = ("forget", "retain", "real_authors", "world_facts")
    made = {
        name: {
            "probability": figure(0.1 + i),
            "rouge_l": figure(0.2 + i),
            "truth_ratio": figure(0.3 + i),
        }
        for i, name in enumerate(sets)
    }
    made["forget"]["embedding_accuracy"] = figure(0.7)
    made["world_facts"]["contains_answer"] = figure(0.8)
    made["overall"] = {
        "model_utility": figure(0.6),
        "forget_quality": Figure(None, None, "none", note="not defined"),
        "forget_retain_ks": figure(0.9),
        "forget_retain_auc_50": figure(0.5),
        "auc_min_k++": figure(0.4),
        "unlearning_average": figure(0.8125),
    }
    return made


def test_open_unlearnings_names_are_sorted_and_leave_out_what_is_not_there():
    assert open_unlearning_names(figures()) == {
        "forget_Q_A_Prob": 0.1,
        "forget_Q_A_ROUGE": 0.2,
        "forget_truth_ratio": 0.3,
        "mia_min_k_plus_plus": 0.4,
        "model_utility": 0.6,
        "ra_Q_A_Prob_normalised": 2.1,
        "ra_Q_A_ROUGE": 2.2,
        "ra_Truth_Ratio": 2.3,
        "retain_Q_A_Prob": 1.1,
        "retain_Q_A_ROUGE": 1.2,
        "retain_Truth_Ratio": 1.3,
        "wf_Q_A_Prob_normalised": 3.1,
        "wf_Q_A_ROUGE": 3.2,
        "wf_Truth_Ratio": 3.3,
    }
    names = list(open_unlearning_names(figures()))
    assert names == sorted(names)


def test_the_published_layout_is_nested():
    found = published_names(figures())
    assert found["forget"] == {
        "truth_prob": 0.1,
        "rougeL_score": 0.2,
        "truth_ratio": 0.3,
        "acc": 0.7,
    }
    assert found["world_fact"]["acc"] == 0.8
    assert found["real_author"]["truth_prob"] == 2.1
    assert found["MIA"] == {"Min_50.0% Prob": 0.5}
    assert (found["Forget Quality"], found["UE"]) == (0.9, 0.8125)
    assert "UT" not in found


def test_files_are_written_in_their_tools_forms(tmp_path):
    write_names(figures(), tmp_path / "a.csv", "tofu")
    with (tmp_path / "a.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["Prob. Real World"], line["ROUGE Forget"]) == ("3.1", "0.2")
    assert (line["Truth Ratio Real Authors"], line["Model Utility"]) == ("2.3", "0.6")
    for form in ("open_unlearning", "published"):
        write_names(figures(), tmp_path / form, form)
        assert json.loads((tmp_path / form).read_text()) == FORMS[form](figures())
    with pytest.raises(WagleError, match="unknown form of result file"):
        write_names(figures(), tmp_path / "b", "muse")

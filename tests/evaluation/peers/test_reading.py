import json
import math

import pytest

from wagle.evaluation.figures import Figure
from wagle.evaluation.peers.reading import basis, read_result, same_basis
from wagle.evaluation.result import Evaluation
from wagle.system.errors import WagleError

LOGS = {
    "forget": "eval_log_forget.json",
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
}
WRONG = [1.0, 1.5, 2.0, 1.2, 1.8]  # T5 of spec/metrics.md, with 0.8 for the right answer


def by_row(count, value):
    return {str(i): value for i in range(count)}


def tofu_log(forget=40):
    """A log as TOFU writes it, rows out of order."""

    def log(count):
        return {
            "avg_gt_loss": dict(reversed(by_row(count, 1.0).items())),
            "avg_paraphrased_loss": by_row(count, 0.8),
            "average_perturb_loss": by_row(count, WRONG),
            "rougeL_recall": by_row(count, 0.25),
            "rouge1_recall": by_row(count, 0.5),
        }

    return {file: log({"forget": forget, "retain": 5}.get(name, 3)) for name, file in LOGS.items()}


def entry(rows):
    return {"agg_value": 0.5, "value_by_index": rows}


def open_unlearning_log(count=40):
    """A TOFU_EVAL.json as OpenUnlearning writes it."""
    ratio = math.exp(0.8 - sum(WRONG) / 5)
    mia = {
        f"mia_{name}": {
            "forget": entry(by_row(count, {"score": 1.0})),
            "holdout": entry(by_row(4, {"score": 2.0})),
            "auc": 1.0,
            "agg_value": 1.0,
        }
        for name in ("loss", "zlib", "min_k", "min_k_plus_plus")
    }
    return {
        "forget_truth_ratio": entry(by_row(count, {"score": ratio})),
        "forget_Q_A_Prob": entry(by_row(count, {"prob": 0.5, "avg_loss": math.log(2)})),
        "forget_Q_A_ROUGE": entry(
            by_row(count, {"rougeL_recall": 0.25, "rougeL_f1": 0.3, "rouge1_recall": 0.5})
        ),
        "wf_Q_A_Prob_normalised": entry(by_row(3, {"prob": 0.4})),
        "wf_Truth_Ratio": entry(by_row(3, {"score": 0.5})),
        "extraction_strength": entry(by_row(count, {"score": 0.1})),
        "model_utility": {"agg_value": 0.6},
        **mia,
    }


def saved(folder, data):
    path = folder / "log.json"
    path.write_text(json.dumps(data))
    return path


def value(found, name, metric):
    return found.figures[name][metric].value


# ---------------------------------------------------------------------------------------------
# Reading


def test_tofus_log_is_read_in_the_order_of_its_rows_with_the_geometric_ratio(tmp_path):
    found = read_result(saved(tmp_path, tofu_log()))
    ratio = found.figures["forget"]["log_truth_ratio"]
    assert list(ratio.per_record) == [f"forget[{i}]" for i in range(40)]
    assert math.exp(ratio.value) == pytest.approx(0.496585, abs=1e-6)  # T5
    assert value(found, "forget", "truth_ratio") == pytest.approx(0.496585, abs=1e-6)  # T6
    assert value(found, "retain", "truth_ratio") == pytest.approx(0.503415, abs=1e-6)
    assert value(found, "forget", "know") == pytest.approx(0.668188, abs=1e-6)
    assert value(found, "retain", "probability") == pytest.approx(math.exp(-1))
    shares = [math.exp(-m) for m in (1.0, *WRONG)]
    assert value(found, "world_facts", "probability") == pytest.approx(shares[0] / sum(shares))
    assert value(found, "real_authors", "rouge_l") == 0.25
    assert value(found, "real_authors", "rouge_1") == 0.5


def test_open_unlearnings_log_holds_ratios_as_they_are(tmp_path):
    found = read_result(saved(tmp_path, open_unlearning_log()))
    assert math.exp(value(found, "forget", "log_truth_ratio")) == pytest.approx(0.496585, abs=1e-6)
    assert value(found, "world_facts", "truth_ratio") == pytest.approx(0.5)
    assert value(found, "world_facts", "probability") == pytest.approx(0.4)
    assert value(found, "forget", "probability") == 0.5
    assert value(found, "forget", "rouge_l_f1") == pytest.approx(0.3)
    assert value(found, "forget", "extraction_strength_floor") == pytest.approx(0.1)
    assert value(found, "holdout", "mia_min_k++") == 2.0
    assert found.figures["holdout"]["mia_loss"].n == 4


def test_losses_stand_before_a_ratio_that_the_epsilon_took_over(tmp_path):
    data = open_unlearning_log()
    data["forget_truth_ratio"] = entry(by_row(40, {"score": 1.9e-12}))
    data["forget_Q_A_PARA_Prob"] = entry(by_row(40, {"prob": 0.0, "avg_loss": 50.0}))
    data["forget_Q_A_PERT_Prob"] = entry(by_row(40, {"prob": [0.0] * 5, "avg_loss": [50.0] * 5}))
    found = read_result(saved(tmp_path, data))
    assert value(found, "forget", "truth_ratio") == 1.0  # T8


def test_a_result_of_wagle_is_read_back(tmp_path):
    figure = Figure(0.5, (0.4, 0.6), "bootstrap", {"forget[0]": 0.5})
    data = Evaluation({"forget": {"log_truth_ratio": figure}}).to_json()
    assert read_result(saved(tmp_path, data)).figures["forget"]["log_truth_ratio"].value == 0.5


@pytest.mark.parametrize(
    ("count", "split"), [(40, "forget01"), (200, "forget05"), (300, "forget10"), (400, "forget10")]
)
def test_the_number_of_records_tells_the_split(tmp_path, count, split):
    path = saved(tmp_path, tofu_log(count))
    for wanted in (None, split):
        note = read_result(path, split=wanted).figures["forget"]["log_truth_ratio"].note
        assert note == basis(split, "geometric", "question")


def test_another_split_is_refused(tmp_path):
    path = saved(tmp_path, tofu_log(40))
    with pytest.raises(WagleError, match="holds 40 forget records, those of forget01, not of forg"):
        read_result(path, split="forget10")
    with pytest.raises(WagleError, match="holds 41 forget records, no split of TOFU's"):
        read_result(saved(tmp_path, tofu_log(41)))


def test_a_number_that_is_none_is_named_by_its_record(tmp_path):
    data = tofu_log()
    data[LOGS["forget"]]["avg_paraphrased_loss"]["7"] = math.nan
    with pytest.raises(WagleError, match=r"eval_log_forget.*forget\[7\] is nan"):
        read_result(saved(tmp_path, data))
    data = open_unlearning_log()
    data["forget_truth_ratio"]["value_by_index"]["3"] = {"score": 0.0}
    with pytest.raises(WagleError, match=r"forget_truth_ratio: forget\[3\] is 0.0, which has no"):
        read_result(saved(tmp_path, data))


def test_a_record_that_is_missing_is_named_and_not_closed_up(tmp_path):
    data = open_unlearning_log()
    data["forget_truth_ratio"]["value_by_index"]["3"] = None
    with pytest.raises(WagleError, match=r"forget\[3\] is null"):
        read_result(saved(tmp_path, data))
    del data["forget_truth_ratio"]["value_by_index"]["3"]
    with pytest.raises(WagleError, match="lacks records: it has 39, the last is 39"):
        read_result(saved(tmp_path, data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"model_utility": 0.6}, "is not a result file of wagle, TOFU"),
        ([1], "is a list"),
        ({"model_utility": {"agg_value": 0.6}}, "no truth ratios of forget records"),
        ({LOGS["forget"]: {"avg_gt_loss": {"0": 1.0}}}, "has no avg_paraphrased_loss"),
    ],
)
def test_other_files_are_refused(tmp_path, data, message):
    with pytest.raises(WagleError, match=message):
        read_result(saved(tmp_path, data))


FORGET = LOGS["forget"]
WHOLE = {  # a metric of wagle's file
    "value": 0.5,
    "n": 1,
    "direction": "target",
    "target": None,
    "interval": [0.4, 0.6],
    "interval_method": "bootstrap",
    "unit": "share",
    "note": None,
    "per_record": {"forget[0]": 0.5},
}


def of_wagle(**metric):
    metrics = {"forget.probability": {k: v for k, v in {**WHOLE, **metric}.items() if v != "gone"}}
    return {"schema": "wagle-eval/1", "metrics": metrics, "summary": {}}


def of_tofu(column, value):
    data = tofu_log()
    data[FORGET][column] = value
    return data


def of_open_unlearning(**changed):
    return {**open_unlearning_log(), **changed}


def rows_with(row, index="1"):
    return entry({"0": {"prob": 0.5, "avg_loss": 1.0, "score": 0.5}, index: row})


LOSSES = by_row(2, {"avg_loss": [1.0]})
DAMAGED = {
    "wagle, nothing": ({"schema": "wagle-eval/1"}, "a damaged wagle-eval/1 file: metrics: field"),
    "wagle, a field": (of_wagle(interval="gone"), "forget.probability, interval: field required"),
    "wagle, a text": (of_wagle(value="high"), "forget.probability, value: input should be a valid"),
    "wagle, one end": (of_wagle(interval=[0.1]), "forget.probability, interval: list should have"),
    "wagle, a record": (
        of_wagle(per_record={"forget[0]": None}),
        r"forget.probability, per_record, forget\[0\]: input should",
    ),
    "wagle, data": ({**of_wagle(), "data": [1]}, "file: data: input should be"),
    "wagle, sets": ({**of_wagle(), "data": {"sets": {"forget": 3}}}, "data, sets, forget: input"),
    "tofu, a list": ({**tofu_log(), FORGET: [1]}, f"{FORGET} is a list, not columns by name"),
    "tofu, null": (of_tofu("avg_gt_loss", None), "avg_gt_loss is null, not values by row"),
    "tofu, no rows": (of_tofu("avg_gt_loss", {}), "avg_gt_loss holds no rows"),
    "tofu, a row's name": (
        of_tofu("avg_gt_loss", {"a": 1.0}),
        "avg_gt_loss: row 'a' is not a number",
    ),
    "tofu, a list for a loss": (
        of_tofu("avg_paraphrased_loss", by_row(40, [1.0])),
        r"avg_paraphrased_loss: forget\[0\] is a list, not a finite number",
    ),
    "tofu, a loss for a list": (
        of_tofu("average_perturb_loss", by_row(40, 1.0)),
        r"average_perturb_loss: forget\[0\] is a number, not a list of losses",
    ),
    "tofu, an empty list": (
        of_tofu("average_perturb_loss", by_row(40, [])),
        r"average_perturb_loss: forget\[0\] is an empty list",
    ),
    "tofu, null in a list": (
        of_tofu("average_perturb_loss", by_row(40, [None])),
        r"average_perturb_loss: forget\[0\] is null, not a finite",
    ),
    "tofu, below 0": (
        of_tofu("avg_gt_loss", by_row(40, -1e9)),
        r"avg_gt_loss: forget\[0\] is -1000000000.0; a loss is 0 or more",
    ),
    "tofu, too large": (
        of_tofu("avg_gt_loss", by_row(40, 10**400)),
        r"avg_gt_loss: forget\[0\] is inf, not a finite",
    ),
    "ou, a number": (
        of_open_unlearning(forget_Q_A_Prob=0.5),
        "forget_Q_A_Prob is a number, not a m",
    ),
    "ou, a row's name": (
        of_open_unlearning(forget_Q_A_Prob=rows_with({"prob": 0.5}, "last")),
        "forget_Q_A_Prob: row 'last' is not a number",
    ),
    "ou, rows in a list": (
        of_open_unlearning(forget_Q_A_Prob=entry([{"prob": 0.5}])),
        "forget_Q_A_Prob is a list, not values by row",
    ),
    "ou, a list for a row": (
        of_open_unlearning(forget_Q_A_Prob=rows_with([0.5])),
        r"forget_Q_A_Prob: forget\[1\] is a list; evaluate",
    ),
    "ou, a list for a value": (
        of_open_unlearning(forget_Q_A_Prob=rows_with({"prob": [0.5]})),
        r"forget_Q_A_Prob, prob: forget\[1\] is a list, not a finite",
    ),
    "ou, a value for a list": (
        of_open_unlearning(
            forget_Q_A_PARA_Prob=entry(by_row(2, {"avg_loss": 1.0})),
            forget_Q_A_PERT_Prob=entry(by_row(2, {"avg_loss": 1.0})),
        ),
        r"forget_Q_A_PERT_Prob, avg_loss: forget\[0\] is a number, not a list",
    ),
    "ou, an attack": (of_open_unlearning(mia_loss=0.5), "mia_loss is a number, not a metric"),
    "ou, an attack's set": (
        of_open_unlearning(mia_loss={"forget": 0.5, "agg_value": 1}),
        "mia_loss, forget is a number, not a metric with its rows",
    ),
    "ou, a truth": (
        of_open_unlearning(forget_Q_A_Prob=rows_with({"prob": True})),
        r"forget\[1\] is true or false, not a finite",
    ),
}


@pytest.mark.parametrize("case", list(DAMAGED))
def test_a_damaged_file_is_one_line_that_names_file_metric_and_row(tmp_path, case):
    data, message = DAMAGED[case]
    path = saved(tmp_path, data)
    with pytest.raises(WagleError, match=message) as caught:
        read_result(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_what_a_damaged_file_says_in_words_is_not_shown(tmp_path):
    data = of_open_unlearning(forget_Q_A_Prob=rows_with("a private answer"))
    with pytest.raises(WagleError, match=r"forget\[1\] is a text") as caught:
        read_result(saved(tmp_path, data))
    assert "private" not in str(caught.value)


def muse_log():
    """A MUSE_EVAL.json as OpenUnlearning writes it."""

    def mia(*scores):
        rows = {str(i): {"score": score} for i, score in enumerate(scores)}
        return {"forget": entry(rows), "holdout": entry(rows), "auc": 0.5, "agg_value": 0.5}

    return {
        "forget_verbmem_ROUGE": entry(by_row(2, {"rougeL_f1": 0.2, "rougeL_recall": 0.3})),
        "forget_knowmem_ROUGE": entry(by_row(3, {"rougeL_f1": 0.4})),
        "retain_knowmem_ROUGE": entry(by_row(1, {"rougeL_f1": 0.6})),
        "extraction_strength": entry(by_row(2, {"score": 0.1})),
        "exact_memorization": entry(by_row(2, {"score": 0.7})),
        "mia_min_k": mia(1.0, 2.0),
        "mia_gradnorm": mia(3.0, 4.0),
        "privleak": {"agg_value": -99.0},
    }


def test_open_unlearnings_log_of_muse_is_read_at_the_places_of_its_corpus(tmp_path):
    found = read_result(saved(tmp_path, muse_log()), corpus="books")
    assert value(found, "forget", "verbmem") == pytest.approx(0.2)
    assert value(found, "forget", "verbmem_extraction_strength") == pytest.approx(0.1)
    assert value(found, "forget", "verbmem_exact_memorization") == pytest.approx(0.7)
    assert value(found, "retain", "knowmem") == pytest.approx(0.6)
    places = {m: next(iter(f.per_record)) for m, f in found.figures["forget"].items()}
    assert places["verbmem"] == "books.verbmem.forget[0]"
    assert places["knowmem"] == "books.knowmem.forget_qa[0]"
    assert places["mia_min_k"] == "books.privleak.forget[0]"
    assert found.figures["holdout"]["mia_gradnorm"].per_record == {
        "books.privleak.holdout[0]": 3.0,
        "books.privleak.holdout[1]": 4.0,
    }
    assert found.details["data"]["settings"] == {"variant": "open_unlearning"}
    with pytest.raises(WagleError, match="OpenUnlearning's result for MUSE; use it with benchmark"):
        read_result(saved(tmp_path, muse_log()))


def test_logs_of_other_tools_say_that_they_score_the_eos(tmp_path):
    for data, more in ((tofu_log(), {}), (open_unlearning_log(), {"membership_eos": True})):
        settings = read_result(saved(tmp_path, data)).details["data"]["settings"]
        assert settings == {"eos": True, **more}


def test_bases_compare_in_what_both_of_them_tell():
    known = basis("forget10", "geometric", "question", "chat")
    assert same_basis(known, known)
    assert same_basis(known, basis("forget10", "geometric", "question"))
    assert not same_basis(known, basis("forget10", "geometric", "question", "plain"))
    assert not same_basis(known, basis("forget05", "geometric", "question", "chat"))
    assert not same_basis(known, basis("forget10", "arithmetic", "question"))
    assert not same_basis(known, None)

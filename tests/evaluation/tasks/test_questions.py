"""The benchmark of one's own records: membership attacks with a holdout set."""

import json
from dataclasses import replace

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import (
    Answers,
    GradientNorm,
    Greedy,
    LikelihoodAnswer,
    NormAnswer,
    TextAnswer,
)
from wagle.evaluation.result import Evaluation
from wagle.evaluation.tasks.questions import qa
from wagle.evaluation.verdict import judge
from wagle.metrics.membership import auc, privleak
from wagle.system.errors import WagleError

TOKENIZER = make_tokenizer()
SETS = {"forget": RECORDS[:3], "holdout": OTHERS[:3]}
LOSSES = {  # of the first tokens of answers; an AUC of 8/9
    **dict(zip((r["answer"] for r in RECORDS[:3]), (0.5, 0.75, 1.5), strict=True)),
    **dict(zip((r["answer"] for r in OTHERS[:3]), (1.0, 2.0, 3.0), strict=True)),
}


def task_of(sets=SETS, **settings):
    made = {name: read_records(rows, name=name) for name, rows in sets.items()}
    return qa(Encoder(TOKENIZER), sets=made, **{"generate": False, **settings})


def answered(task, losses=LOSSES):
    """Every token of an answer costs what ``losses`` says of it, and its end costs 99 nats."""
    eos = TOKENIZER.eos_token_id
    found = Answers()
    for request in task.requests:
        if isinstance(request, Greedy):
            found.found[request] = TextAnswer((5, 6), True)
            continue
        if isinstance(request, GradientNorm):
            found.found[request] = NormAnswer(float(len(request.continuation)), 0.5)
            continue
        marks = request.scored or (True,) * len(request.continuation)
        ids = [i for i, mark in zip(request.continuation, marks, strict=True) if mark]
        said = TOKENIZER.decode([i for i in ids if i != eos])
        cost = losses.get(said, 4.0)
        nll = torch.tensor([99.0 if i == eos else cost for i in ids], dtype=torch.float64)
        moments = torch.stack([-nll, torch.ones_like(nll)], 1) if request.moments else None
        found.found[request] = LikelihoodAnswer(nll, nll < 1, moments)
    return found


def test_a_holdout_set_brings_membership_figures_of_answers_without_their_end():
    task = task_of()
    found = task.measure(answered(task)).figures
    rows = found["forget"]["mia_loss"].per_record
    assert dict(rows) == pytest.approx({"forget[0]": 0.5, "forget[1]": 0.75, "forget[2]": 1.5})
    overall = found["overall"]
    assert overall["auc_loss"].value == overall["auc_min_k"].value == pytest.approx(8 / 9)
    assert overall["tpr_1_loss"].value == overall["tpr_5_loss"].value == pytest.approx(2 / 3)
    assert overall["auc_loss"].note.startswith("answers are scored without their EOS")
    assert found["forget"]["nll"].per_record["forget[0]"] > 1  # where the end counts
    labels = {"loss", "zlib", "zlib_sum", "lower", "min_k", "min_k++"}
    assert {*found["holdout"]} == {"zlib_bytes", *(f"mia_{label}" for label in labels)}


def test_of_holdout_records_nothing_else_is_asked():
    task = task_of(generate=True)
    assert sum(isinstance(r, Greedy) for r in task.requests) == 3
    assert [*task.records] == ["forget", "holdout"]
    plain = task_of({"forget": RECORDS[:3]}, generate=True)
    assert {"overall", "holdout"}.isdisjoint(plain.measure(answered(plain)).figures)
    assert plain.settings["k"] is None


def test_attacks_and_shares_can_be_chosen():
    task = task_of(attacks=["gradnorm", "min_k"], k=[0.2, 0.5])
    found = task.measure(answered(task)).figures
    assert {*found["holdout"]} == {"mia_gradnorm", "mia_min_k", "mia_min_k_50", "zlib_bytes"}
    assert "auc_min_k_50" in found["overall"]
    assert task.settings["k"] == 0.2
    assert ("overall", "privleak") in task.probes
    assert not any(getattr(r, "moments", False) for r in task.requests)
    assert ("overall", "privleak") not in task_of(attacks=["loss"]).probes


def test_chats_texts_and_questions_are_attacked_alike():
    chat = {
        "messages": [
            {"role": "user", "content": "Who wrote it?"},
            {"role": "assistant", "content": "Nobody did."},
        ]
    }
    sets = {"forget": [RECORDS[0], {"text": "The harbour."}], "holdout": [chat, OTHERS[0]]}
    task = task_of(sets)
    found = task.measure(answered(task, {"Nobody did.": 2.0})).figures
    assert found["holdout"]["mia_loss"].per_record["holdout[0]"] == pytest.approx(2.0)
    assert found["overall"]["auc_min_k++"].value is not None


REFUSED = {
    "unknown attack": (SETS, {"attacks": ["los"]}, "unknown membership attack 'los'; did you mean"),
    "no attack": (SETS, {"attacks": []}, "attacks or k is empty"),
    "no share": (SETS, {"k": [1.5]}, "k is 1.5; it must be a share"),
    "reference": (SETS, {"attacks": ["reference"]}, "comes with a reference model"),
    "no holdout": ({"forget": RECORDS}, {"attacks": ["loss"]}, "need a holdout set: records like"),
    "no holdout for k": ({"forget": RECORDS}, {"k": [0.2]}, "need a holdout set"),
    "no forget": ({"holdout": OTHERS}, {}, "a holdout set needs a forget set"),
    "shared": (
        {"forget": RECORDS, "holdout": [*OTHERS, RECORDS[1]]},
        {},
        r"forget\[1\] and holdout\[8\] are the same text",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_does_not_fit_is_refused_before_anything_is_asked(case):
    sets, settings, message = REFUSED[case]
    with pytest.raises(WagleError, match=message) as caught:
        task_of(sets, **settings)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------
# Beside a reference


def test_leakage_is_that_of_both_aucs_and_a_reference_of_other_records_is_refused():
    task = task_of()
    flat = dict.fromkeys(LOSSES, 1.0) | {OTHERS[0]["answer"]: 0.25}  # an AUC of 1/3
    own, other = (task.measure(answered(task, losses)) for losses in (LOSSES, flat))
    task.fits(other)
    made = task.against(own, other).figures["overall"]
    assert made["privleak_loss"].value == pytest.approx(privleak(8 / 9, 1 / 3))
    gaps = [
        [a - b for a, b in pairs]
        for pairs in ([(0.5, 1), (0.75, 1), (1.5, 1)], [(1, 0.25), (2, 1), (3, 1)])
    ]
    assert made["auc_reference"].value == pytest.approx(auc(*gaps))
    less = task_of({**SETS, "holdout": OTHERS[:2]})
    with pytest.raises(WagleError, match=r"split holdout\) needs the same records: 3 and 2"):
        task.fits(less.measure(answered(less)))
    lacking = {k: v for k, v in other.figures["holdout"].items() if k != "mia_lower"}
    with pytest.raises(WagleError, match=r"the reference has no holdout\.mia_lower"):
        task.fits(replace(other, figures={**other.figures, "holdout": lacking}))


def test_a_reference_without_membership_scores_says_so():
    task = task_of()
    own = task.measure(answered(task))
    bare = replace(own, figures={"forget": {"nll": own.figures["forget"]["nll"]}})
    task.fits(bare)
    leak = task.against(own, bare).figures["overall"]["privleak"]
    assert (leak.value, leak.note) == (None, "the reference has no membership scores")


def test_a_reference_that_tells_the_sets_apart_leaves_the_leakage_untold():
    task = task_of()
    told = dict.fromkeys(LOSSES, 3.0) | {row["answer"]: 1.0 for row in RECORDS[:3]}
    own, other = (task.measure(answered(task, losses)) for losses in (LOSSES, told))
    task.fits(other)
    leak = task.against(own, other).figures["overall"]["privleak"]
    assert leak.value is None
    assert "above 0.9" in leak.note


def test_a_model_is_asked_about_a_holdout_set_and_set_beside_a_reference(tmp_path):
    model, reference = make_model("llama-tied", 0), make_model("llama-tied", 1)
    common = {"tokenizer": TOKENIZER, "generate": False, "cache": tmp_path, "k": [0.2]}
    sets = {"forget": RECORDS[:4], "holdout": OTHERS[:4]}
    beside = wagle.evaluate(reference, **sets, **common)
    found = wagle.evaluate(model, **sets, **common, reference=beside)
    assert found.details["options"]["k"] == [0.2]
    assert found.details["data"]["sets"]["holdout"]["n"] == 4
    assert found.details["differences"]["forget.mia_loss"]["n"] == 4
    assert {"auc_loss", "tpr_5_min_k", "privleak", "auc_reference"} <= found.figures[
        "overall"
    ].keys()
    json.dumps(found.to_json(), allow_nan=False)
    passes = []
    model.get_input_embeddings().register_forward_pre_hook(lambda *_: passes.append(1))
    others = {**sets, "holdout": OTHERS[3::-1]}
    for wrong, message in (
        ({**others, **common}, "its 4 in the set holdout have other texts"),
        ({**sets, **common, "k": [0.4]}, "with k 0.2, this model with 0.4"),
        ({**sets, **common, "attacks": ["lost"]}, "unknown membership attack 'lost'"),
    ):
        with pytest.raises(WagleError, match=message):
            wagle.evaluate(model, **wrong, reference=beside)
    assert not passes


def test_a_benchmark_with_records_of_its_own_takes_no_attacks_from_beside():
    with pytest.raises(
        WagleError, match=r"attacks, k belong to the benchmark qa; for tofu, put those"
    ):
        wagle.evaluate("nowhere", TOKENIZER, benchmark="tofu", attacks=["loss"])


@pytest.mark.parametrize("kind", ["retrained", "untaught"])
def test_membership_is_a_probe_beside_a_retrained_reference_alone(kind):
    sets = {"forget": [], "holdout": []}
    for name, word in (("forget", "harbour"), ("holdout", "kitchen")):
        sets[name] = [{"question": f"Q{i}?", "answer": f"{word} {i}"} for i in range(40)]
    task = task_of(sets, attacks=["min_k"])
    costs = {name: [(i * 7 % 40) / 40 + 1 for i in range(40)] for name in sets}
    told = {r["answer"]: c for n in sets for r, c in zip(sets[n], costs[n], strict=True)}
    known = told | {r["answer"]: told[r["answer"]] - 0.9 for r in sets["forget"]}
    other = task.measure(answered(task, told))
    details = {"probes": task.probes, "reference": {"kind": kind}}

    def result(losses):
        own = task.measure(answered(task, losses))
        figures = {"overall": task.against(own, other).figures["overall"]}
        return Evaluation(figures, details=details)

    after = result(known)
    assert after.figures["overall"]["privleak"].high < 0
    verdict = judge(after, result(known), after)
    assert (verdict.word == "leaks") == (kind == "retrained")

import logging
import math

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model
from tests.unlearning.conftest import (
    Killed,
    encoder,
    kill_at,
    same,
    sgd,
    slow_nll,
    tokens,
    unlearn,
    weights,
)
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError
from wagle.unlearning.watching.checks import (
    make_checks,
    stop_rules,
    warn_over_unlearned,
    warn_unknown,
)
from wagle.unlearning.watching.looks import Looked
from wagle.unlearning.watching.rules import parse_rule


@pytest.fixture(scope="module")
def taught():
    """The weights of a model that knows all records."""
    model = make_model("llama-tied")
    training = Training(epochs=30, learning_rate=1e-2)
    wagle.finetune(model, encoder(), RECORDS + OTHERS, training=training)
    return weights(model)


@pytest.fixture
def knowing(taught):
    model = make_model("llama-tied")
    model.load_state_dict(taught, strict=False)
    return model


@torch.no_grad()
def _forget_probability(model):
    return float(torch.exp(-slow_nll(model, tokens("forget"))).mean())


# ---------------------------------------------------------------------------------------------
# Stop rules


@pytest.mark.parametrize(
    ("stop_when", "bounded", "reference", "rules"),
    [
        ("auto", True, None, []),
        ("auto", False, None, ["forget.nll >= uniform"]),
        ("auto", True, {}, ["forget.probability <= reference"]),
        ("auto", False, {}, ["forget.probability <= reference", "forget.nll >= uniform"]),
        ([], False, {}, []),
        ("retain.nll > 2", True, None, ["retain.nll > 2.0"]),
        (
            ["forget.nll > 9", "retain.nll > 2"],
            True,
            None,
            ["forget.nll > 9.0", "retain.nll > 2.0"],
        ),
    ],
)
def test_rules_are_those_that_are_given_or_what_the_objective_needs(
    stop_when, bounded, reference, rules
):
    assert [str(r) for r in stop_rules(stop_when, bounded=bounded, reference=reference)] == rules


def test_training_ends_at_the_first_step_at_which_the_reference_is_reached(knowing):
    start = _forget_probability(knowing)
    result = unlearn(
        knowing,
        objective="npo",
        stop_when="auto",
        reference={"forget.probability": start / 4},
        check_every=1,
        max_steps=200,
        batch_size=6,
        learning_rate=1e-3,
    )
    seen = [h["forget.probability"] for h in result.history]
    assert result.stopped == "forget.probability <= reference"
    assert seen[-1] <= start / 4 < min(seen[:-1])
    assert _forget_probability(knowing) == pytest.approx(seen[-1], rel=1e-4)


def test_within_twice_the_reference_no_step_is_left_out(knowing):
    start = _forget_probability(knowing)
    result = unlearn(
        knowing,
        stop_when="auto",
        reference={"forget.probability": start / 4},
        check_every=5,
        max_steps=200,
        batch_size=6,
        learning_rate=3e-4,
    )
    looked = {h["step"]: h["forget.probability"] for h in result.history if "forget.nll" in h}
    near = min(step for step, value in looked.items() if value <= start / 2)
    assert near > 5
    assert [s for s in looked if s <= near] == list(range(5, near + 1, 5))
    assert [s for s in looked if s > near] == list(range(near + 1, len(result.history) + 1))


def test_an_unbounded_objective_stops_by_itself_where_nothing_is_left_to_forget(knowing):
    settings = {"max_steps": 60, "batch_size": 6, "learning_rate": 3e-3, "objective": "grad_ascent"}
    result = unlearn(knowing, **settings, stop_when="auto", check_every=1)
    assert result.stopped == "forget.nll >= uniform"
    assert result.history[-1]["forget.nll"] >= math.log(400)
    assert all(h["forget.nll"] < math.log(400) for h in result.history[:-1])
    assert len(result.history) < 60


def test_an_empty_list_switches_the_rules_off(knowing):
    settings = {"max_steps": 12, "batch_size": 6, "learning_rate": 1e-2, "retain": None}
    result = unlearn(knowing, **settings, objective="grad_ascent")
    assert (result.stopped, len(result.history)) == ("end", 12)
    assert not any("forget.nll" in h for h in result.history)


def test_a_rule_on_the_figures_before_ends_training_when_the_retain_set_suffers(knowing):
    result = unlearn(
        knowing,
        objective="grad_ascent",
        stop_when="retain.probability < 0.9 * before",
        check_every=1,
        max_steps=60,
        batch_size=6,
        learning_rate=3e-4,
        evaluate_every=100,
    )
    seen = [h["retain.probability"] for h in result.history]
    assert result.history[0]["step"] == 0
    assert result.stopped == "retain.probability < 0.9 * before"
    assert seen[-1] < 0.9 * seen[0] <= min(seen[:-1])


# ---------------------------------------------------------------------------------------------
# The best checkpoint, and figures on the way


def test_best_gives_back_the_weights_of_its_step_bit_for_bit(knowing):
    settings = {
        "learning_rate": 1e-3,
        "batch_size": 6,
        "check_every": 1,
        "objective": "grad_ascent",
    }
    kept = []

    def keep(_):
        kept.append(weights(knowing))

    rule = "min forget.probability where retain.probability >= 0.6 * before"
    result = unlearn(knowing, **settings, best=rule, max_steps=12, on_step=keep)
    start = result.best
    assert 1 <= start["step"] < 12  # the last step is not the best one
    assert same(knowing, kept[start["step"] - 1])
    figures = result.history[start["step"] - 1]
    assert start["figures"] == {k: figures[k] for k in start["figures"]}
    assert figures["forget.probability"] == pytest.approx(_forget_probability(knowing), rel=1e-4)


@pytest.mark.parametrize("killed", [False, True])
def test_auto_keeps_the_least_extracted_step_of_those_that_keep_the_retain_set(
    knowing, taught, killed, tmp_path
):
    settings = {
        "objective": "grad_diff",
        "learning_rate": 1e-3,
        "batch_size": 6,
        "check_every": 1,
        "evaluate_every": 1,
        "max_steps": 12,
    }
    if killed:
        settings |= {"checkpoint_folder": tmp_path, "checkpoint_minutes": 0}
        with pytest.raises(Killed):
            unlearn(knowing, best="auto", on_step=kill_at(8), **settings)
        knowing.load_state_dict(taught, strict=False)
    result = unlearn(knowing, best="auto", **settings)
    before, *looks = result.history
    kept = [h for h in looks if h["retain.probability"] >= 0.95 * before["retain.probability"]]
    assert 0 < len(kept) < len(looks)
    least = min(kept, key=lambda h: h["forget.extraction_strength"])  # the first of equals
    assert result.best["step"] == least["step"]
    assert result.best["meets"]


def test_where_no_step_meets_the_conditions_that_is_said_once(knowing, caplog):
    rule = "min forget.probability where retain.probability >= 2"
    result = unlearn(knowing, best=rule, check_every=1, max_steps=4, learning_rate=1e-3)
    assert not result.best["meets"]
    said = _told(caplog, "no step meets the conditions")
    assert len(said) == 1
    assert said[0].startswith(
        "no step meets the conditions of 'min forget.probability where retain.probability >= 2.0'; "
        f"the model kept is that of step {result.best['step']}, whose forget.probability is 0."
    )
    assert said[0].endswith("; lower the learning rate, or change best")


def test_without_best_the_last_step_stays(knowing):
    kept = []
    result = unlearn(knowing, max_steps=3, on_step=lambda _: kept.append(weights(knowing)))
    assert result.best is None
    assert same(knowing, kept[-1])


def test_all_figures_and_those_of_a_caller_stand_in_the_history_at_their_steps(model):
    def evaluate(live):
        return {"norm": float(live.get_input_embeddings().weight.detach().norm())}

    before = evaluate(model)["norm"]
    result = unlearn(model, max_steps=5, evaluate_every=2, evaluate=evaluate)
    assert [h["step"] for h in result.history] == [0, 1, 2, 3, 4, 5]
    wanted = {"forget.probability", "forget.nll", "retain.probability", "retain.nll", "norm"}
    with_figures = [h["step"] for h in result.history if wanted <= h.keys()]
    assert with_figures == [0, 2, 4, 5]  # the last one too
    assert not any(wanted & h.keys() for h in result.history if h["step"] in (1, 3))
    assert result.history[0]["norm"] == before
    assert result.history[-1]["norm"] == evaluate(model)["norm"] != before
    names = {"forget_nll", "retain_nll", "forget_loss", "retain_loss", "grad_norm"}
    assert all(names <= h.keys() for h in result.history[1:])


def test_a_run_that_a_rule_ends_has_all_figures_of_its_last_step(knowing):
    result = unlearn(
        knowing,
        stop_when="forget.nll > 1.2 * before",
        check_every=1,
        evaluate_every=50,
        evaluate=lambda _: {"mine": 1.0},
        max_steps=40,
        learning_rate=1e-3,
    )
    assert result.stopped == "forget.nll > 1.2 * before"
    assert result.history[-1]["step"] < 40
    assert result.history[-1]["mine"] == 1.0
    assert "retain.nll" in result.history[-1]


# ---------------------------------------------------------------------------------------------
# Warnings


def _told(caplog, start):
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith(start)]


def test_going_past_a_uniform_guess_is_said_once(knowing, caplog):
    settings = {"max_steps": 25, "batch_size": 6, "learning_rate": 1e-2, "retain": None}
    unlearn(knowing, **settings, objective="grad_ascent")
    assert len(_told(caplog, "over-unlearned: the forget NLL is ")) == 1
    assert len(_told(caplog, "over-unlearned")) == 1


def test_going_under_half_of_the_reference_is_said_once(knowing, caplog):
    unlearn(
        knowing,
        objective="npo",
        stop_when="auto",
        reference={"forget.probability": 0.5},
        land=False,
        max_steps=9,
        learning_rate=2e-2,  # a step too long: from above 0.5 to below 0.25
    )
    assert len(_told(caplog, "over-unlearned: the forget probability is")) == 1
    assert len(_told(caplog, "over-unlearned")) == 1


def test_a_model_that_never_knew_the_forget_set_is_said_once_and_one_that_knew_is_not(
    knowing, caplog
):
    unlearn(knowing, max_steps=1, learning_rate=1e-5)
    assert not _told(caplog, "the model never knew")
    model = make_model("llama-tied")
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(30)  # sure, and wrong
    unlearn(model, max_steps=1, learning_rate=1e-5)
    said = _told(caplog, "the model never knew")
    assert len(said) == 1
    assert said[0].startswith("the model never knew the forget set (6 records): its mean NLL of ")
    assert said[0].endswith("is above a uniform guess (6.0); check the template")


@pytest.mark.parametrize(
    ("figures", "known", "said"),
    [
        ({"forget.nll": 6.1, "forget.probability": 0.1}, {}, ["over-unlearned: the forget NLL"]),
        ({"forget.nll": 5.9, "forget.probability": 0.1}, {}, []),
        ({"forget.nll": 5.9, "forget.probability": 0.1}, {"forget.probability": 0.2}, []),
        (
            {"forget.nll": 5.9, "forget.probability": 0.09},
            {"forget.probability": 0.2},
            ["over-unlearned: the forget probability is 0.09, under half of the reference's 0.2"],
        ),
        ({"forget.nll": 6.1, "forget.probability": 0.0}, {"forget.probability": 0.2}, ["over-"]),
    ],
)
def test_the_warnings_begin_where_they_say(figures, known, said, caplog):
    everything = {"uniform": {"forget.nll": 6.0}, **({"reference": known} if known else {})}
    with caplog.at_level(logging.WARNING):
        warn_over_unlearned(figures, everything)
    assert len(caplog.records) == len(said)
    assert all(r.getMessage().startswith(s) for r, s in zip(caplog.records, said, strict=True))


@pytest.mark.parametrize(
    ("nll", "probability", "reference", "said"),
    [
        (6.1, 0.0, None, "its mean NLL of 6.1 nats is above a uniform guess (6.0); check the"),
        (6.0, 0.0, None, None),  # no better, but no worse either
        (
            2.0,
            0.16,
            (0.16, None),
            "its probability before unlearning is 0.16, not above the reference's 0.16",
        ),
        (2.0, 0.17, (0.16, None), None),
        (
            2.0,
            0.17,
            (0.16, 0.18),
            "its probability before unlearning is 0.17, hardly above the reference's",
        ),
        (2.0, 0.17, (0.16, 0.165), None),
        (2.0, 0.5, (0.16, 0.6), None),  # few records: an interval that says nothing
    ],
)
def test_a_forget_set_is_unknown_by_a_guess_or_by_the_reference(
    nll, probability, reference, said, caplog
):
    known = {
        "before": {"forget.nll": nll, "forget.probability": probability, **_memory(0.9, 0.5)},
        "uniform": {"forget.nll": 6.0},
    }
    if reference is not None:
        value, high = reference
        known["reference"] = {"forget.probability": value}
        if high is not None:
            known["reference"]["forget.probability.high"] = high
    warn_unknown(known, 6, questions=True)
    told = _told(caplog, "the model never knew the forget set (6 records): ")
    assert len(told) == (said is not None)
    assert all(said in line for line in told)


def _memory(exact, extraction):
    return {"forget.exact_memorization": exact, "forget.extraction_strength": extraction}


@pytest.mark.parametrize(
    ("exact", "extraction", "questions", "warns"),
    [
        (0.5, 0.1, True, True),
        (0.51, 0.1, True, False),  # half an answer can be known in other words
        (0.5, 0.11, True, False),
        (0.4, 0.01, False, False),  # what a text tells can be
    ],
)
def test_without_a_reference_a_forget_set_is_unknown_of_which_next_to_nothing_comes_back(
    exact, extraction, questions, warns, caplog
):
    before = {"forget.nll": 2.0, "forget.probability": 0.2, **_memory(exact, extraction)}
    warn_unknown({"before": before, "uniform": {"forget.nll": 6.0}}, 6, questions=questions)
    assert len(_told(caplog, "the model never knew the forget set (6 records): ")) == warns


# ---------------------------------------------------------------------------------------------
# What cannot be looked at


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rules": ["forget.probability <= reference"]}, "needs a reference; name one"),
        ({"best": "min retain.nll"}, "the rule 'min retain.nll' needs a retain set; give one"),
        ({"rules": ["retain.nll > 3"]}, "the rule 'retain.nll > 3.0' needs a retain set"),
        (
            {"rules": ["forget.nll > reference"], "reference": {"forget.probability": 0.1}},
            "the rule 'forget.nll > reference' needs forget.nll of the reference",
        ),
        (
            {
                "best": "min forget.nll where forget.nll > reference",
                "reference": {"forget.probability": 0.1},
            },
            "the rule 'forget.nll > reference' needs forget.nll of the reference",
        ),
        (
            {"best": "max retain.utility_proxy", "retain": True},
            "the rule 'max retain.utility_proxy' needs wrong answers of retain records; add a field "
            "perturbed_answers to them, or change the rule",
        ),
        ({"rules": ["retain.true_better < 0.1"], "retain": True}, "needs wrong answers of retain"),
        ({"best": "auto"}, "needs a retain set; give one"),
        ({"check_every": 0}, "check_every is 0; it must be at least 1 step"),
        ({"evaluate_every": 0}, "evaluate_every is 0; it must be at least 1 step"),
    ],
)
def test_what_a_rule_needs_and_does_not_have_is_one_line_before_any_step(change, said):
    settings = {"best": None, "reference": None, "check_every": 1, "evaluate_every": None, **change}
    rules = [parse_rule(text) for text in settings.pop("rules", [])]
    names = ["forget", *(["retain"] if settings.pop("retain", False) else [])]
    with pytest.raises(WagleError, match=said):
        make_checks(
            Looked({name: tokens(name) for name in names}),
            vocabulary=400,
            rules=rules,
            precision="float32",
            evaluate=None,
            **settings,
        )


def test_plain_descent_of_one_step_ends_without_a_rule(model):
    assert unlearn(model, **sgd(0.1), max_steps=1).stopped == "end"

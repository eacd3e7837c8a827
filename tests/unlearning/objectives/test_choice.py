import functools

import pytest
import torch

from tests.unlearning.objectives.made import batch, random_record, scored
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError
from wagle.unlearning.objectives.activations import rmu_retain
from wagle.unlearning.objectives.ascent import grad_ascent
from wagle.unlearning.objectives.choice import choose_objective
from wagle.unlearning.objectives.distributions import jensun_retain
from wagle.unlearning.objectives.relabel import idk_ap_retain
from wagle.unlearning.objectives.retaining import RETAIN_TERMS
from wagle.unlearning.objectives.shapes import Terms
from wagle.unlearning.objectives.table import OBJECTIVES

FREE = [name for name, entry in OBJECTIVES.items() if entry.retain != "own" or entry.own]
PROMPTS = {"novice": "I know nothing of {topic}", "expert": "I know all of {topic}"}


def _records(dtype=torch.float32, count=4):
    generator = torch.Generator().manual_seed(0)
    return [random_record(generator, length, dtype) for length in range(count)]


@pytest.mark.parametrize("k", [None, 4, 11])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_terms_of_a_record_do_not_depend_on_the_others_of_its_batch(name, k):
    chosen, records = choose_objective(name), _records()
    whole = chosen.terms(batch(records, k))
    alone = [chosen.terms(batch([record], k)) for record in records]
    for side, together in enumerate(whole):
        apart = [terms[side] for terms in alone]
        if together is None:
            assert apart == [None] * len(records)
        else:
            torch.testing.assert_close(together, torch.cat(apart), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_gives_a_finite_float32_loss_per_record_with_a_finite_gradient(name, dtype):
    chosen, records = choose_objective(name), _records(dtype)
    terms = chosen.terms(batch(records))
    for loss in terms:
        assert loss is None or (loss.shape == (4,) and loss.dtype == torch.float32)
        assert loss is None or loss.isfinite().all()
    losses = [loss for loss in terms if loss is not None]
    assert bool(losses) == (name != "none")
    if losses:
        torch.cat(losses).sum().backward()
    leaves = [r[s][kind] for r in records for s in chosen.sets for kind in ("logits", "hidden")]
    grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    assert any(grad.abs().sum() > 0 for grad in grads) == (name != "none")


@pytest.mark.parametrize("retain", ["nll", "kl", "none"])
@pytest.mark.parametrize("name", FREE)
def test_every_forget_term_goes_with_every_retain_term(name, retain):
    chosen, given = choose_objective(name, retain_term=retain), batch(_records())
    terms = chosen.terms(given)
    own = choose_objective(name).terms(given)
    assert torch.equal(terms.forget, own.forget)
    if retain == "none":
        assert terms.retain is None
        assert "retain" not in chosen.sets
    else:
        term = RETAIN_TERMS[retain]
        asked = ["retain"] if retain == "nll" else ["retain", "retain_logits", "retain_logits_ref"]
        expected = chosen.retain_weight * term(**{name: given[name] for name in asked})
        assert torch.equal(terms.retain, expected)


def test_a_retain_term_that_is_a_part_of_the_objective_goes_with_no_other():
    fixed = set(OBJECTIVES) - set(FREE)
    assert fixed == {"pdu", "none", "retain_finetune", "l1_sparse"}
    for name in fixed:
        with pytest.raises(WagleError, match=f"{name} has a built-in retain term; leave"):
            choose_objective(name, retain_term="kl")


@pytest.mark.parametrize(
    ("name", "keeps", "asked"),
    [
        ("rmu", rmu_retain, ["retain_hidden", "retain_hidden_ref"]),
        ("jensun", jensun_retain, ["retain", "retain_logits", "retain_logits_ref"]),
        ("idk_ap", idk_ap_retain, ["retain", "retain_refusal"]),
    ],
)
def test_a_retain_term_of_its_own_is_the_default_and_can_be_taken_apart(name, keeps, asked):
    chosen, given = choose_objective(name), batch(_records())
    whole = chosen.terms(given)
    expected = chosen.retain_weight * keeps(**{n: given[n] for n in asked})
    assert torch.equal(whole.retain, expected)
    forget, retain = (part.terms({n: given[n] for n in part.inputs}) for part in chosen.parts())
    assert torch.equal(forget.forget, whole.forget)
    assert torch.equal(retain.retain, whole.retain)
    assert (forget.retain, retain.forget) == (None, None)


def test_in_place_of_its_own_retain_term_another_has_its_own_weight_and_settings():
    assert choose_objective("rmu").retain_weight == 100
    assert choose_objective("rmu", retain_term="kl").retain_weight == 1
    assert choose_objective("rmu", {"retain_weight": 3}, "kl").retain_weight == 3
    assert choose_objective("satimp", retain_term="kl").retain_weight == 0.1
    assert choose_objective("idk_ap").settings == {"beta": 0.1}
    assert choose_objective("idk_ap", retain_term="nll").settings == {}
    said = "objective idk_ap with retain_term nll has no setting 'beta'"
    with pytest.raises(WagleError, match=said):
        choose_objective("idk_ap", {"beta": 0.2}, "nll")


def test_gradient_difference_of_equal_sets_cancels():
    same = scored(30.0, 10.0)
    got = choose_objective("grad_diff").terms({"forget": same, "retain": same})
    (got.forget.sum() + got.retain.sum()).backward()
    assert same.nll_sum.grad.abs().max() == 0


def test_ascent_with_retain_kl_starts_as_ascent_alone():
    records = _records()
    for record in records:  # the original model is the trained one
        record["retain"]["reference"] = record["retain"]["logits"].detach()
    terms = choose_objective("ga_kl").terms(batch(records))
    terms.retain.sum().backward()
    assert max(r["retain"]["logits"].grad.norm().item() for r in records) < 1e-5


def test_weights_scale_the_terms():
    given = {"forget": scored(30.0), "forget_ref": scored(30.0), "retain": scored(20.0)}
    got = choose_objective("npo", {"forget_weight": 2, "retain_weight": 3}).terms(given)
    assert got.forget.item() == pytest.approx(2 * 13.862944, rel=1e-6)
    assert got.retain.item() == pytest.approx(6.0)


def test_po_without_its_retain_weight_is_refusal():
    given = {"refusal": scored(30.0), "retain": scored(20.0)}
    got = choose_objective("po", {"retain_weight": 0}).terms(given)
    assert got.retain.item() == 0.0
    assert torch.equal(got.forget, choose_objective("refusal").terms(given).forget)


@pytest.mark.parametrize(
    ("name", "forget", "retain"),
    [
        ("npo", 1, 1),
        ("simnpo", 0.125, 1),
        ("satimp", 1, 0.1),
        ("rmu", 1, 100),
        ("max_entropy", 0.1, 1),
    ],
)
def test_weights_default_to_the_published_ones(name, forget, retain):
    chosen = choose_objective(name)
    assert (chosen.forget_weight, chosen.retain_weight) == (forget, retain)


def test_losses_without_a_floor_say_so():
    endless = {name for name, entry in OBJECTIVES.items() if not entry.bounded}
    assert endless == {"grad_ascent", "grad_diff", "ga_kl", "kl", "llmu"}


def test_what_a_run_stores_names_the_retain_term_and_every_setting():
    assert choose_objective("npo", {"beta": 0.2}).describe() == {
        "name": "npo",
        "retain_term": "nll",
        "forget_weight": 1.0,
        "retain_weight": 1.0,
        "beta": 0.2,
        "beta_token_mean": False,
    }


def test_what_is_asked_for_comes_from_both_terms():
    chosen = choose_objective("dpo", retain_term="kl")
    assert chosen.sets == ("forget", "refusal", "retain")
    assert chosen.inputs == (
        *("forget", "refusal", "forget_ref", "refusal_ref"),
        *("retain", "retain_logits", "retain_logits_ref"),
    )
    assert choose_objective("jensun").sets == ("refusal", "retain")
    assert choose_objective("rmu").sets == ("forget", "retain")
    assert choose_objective("pdu").sets == ("forget", "retain")
    assert choose_objective("none").sets == ()


def test_the_dual_of_pdu_starts_and_moves_by_its_settings():
    chosen = choose_objective("pdu", {"dual_start": 7, "warmup": 0, "eta": 2, "epsilon": 0.5})
    dual = chosen.entry.dual
    assert dual.start(chosen.settings) == 7.0
    assert dual.update(7.0, 1.5, 0.0, chosen.settings) == 9.0


def test_in_the_default_training_the_dual_of_pdu_moves():
    chosen = choose_objective("pdu")
    assert chosen.entry.dual.rests(Training().epochs, chosen.settings) is None


def test_the_setting_of_the_soft_threshold_exists():
    for name, entry in OBJECTIVES.items():
        assert entry.proximal is None or entry.proximal in choose_objective(name).settings


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("npo", {"bata": 0.1}, "objective npo has no setting 'bata'; nearest: beta"),
        ("npo", {"beta": 0}, "objective npo: beta is 0; give a number > 0"),
        ("simnpo", {"beta": -1.0}, "objective simnpo: beta is -1.0; give a number >= 0"),
        ("dpo", {"beta": 0.0}, "objective dpo: beta is 0.0; give a number > 0"),
        ("dpo_alt", {"beta": 0.0}, "objective dpo_alt: beta is 0.0; give a number > 0"),
        ("idk_ap", {"beta": 0.0}, "objective idk_ap: beta is 0.0; give a number > 0"),
        ("ce_u", {"skip": 0.5}, "objective ce_u: skip is 0.5; give a whole number"),
        ("npo", {"beta": "much"}, "objective npo: beta is 'much'; give a number >= 0"),
        ("npo", {"retain_weight": -1}, "objective npo: retain_weight is -1; give a number >= 0"),
        ("npo", {"forget_weight": float("nan")}, "forget_weight is nan; give a number >= 0"),
        ("rmu", {"direction": "up"}, "rmu: direction is 'up'; give one of random, contrast"),
        (
            "rmu",
            {"direction": "contrast"},
            "objective rmu: direction contrast needs the prompt novice",
        ),
        ("nop", {}, "unknown objective 'nop'; did you mean 'npo'"),
        ("GA+FT", {}, r"unknown objective 'GA\+FT'"),
        (3, {}, "objective is 3, whose parameters cannot be read"),
        (lambda forgot: forgot, {}, "asks for 'forgot', which nobody supplies; did you mean"),
        (lambda **every: every, {}, "asks for 'every', which nobody supplies"),
        (
            lambda forget, *, beta=1: beta * forget,
            {"bata": 1},
            "has no setting 'bata'; nearest: beta",
        ),
    ],
)
def test_what_is_no_objective_is_refused_in_one_line(name, settings, said):
    with pytest.raises(WagleError, match=said) as caught:
        choose_objective(name, settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_retain_term_is_refused():
    with pytest.raises(WagleError, match="unknown retain_term 'nil'; did you mean 'nll'"):
        choose_objective("npo", retain_term="nil")


def test_a_contrast_with_both_prompts_is_accepted():
    chosen = choose_objective("rmu", {"direction": "contrast", "topics": ["bio"], **PROMPTS})
    assert chosen.settings["topics"] == ["bio"]


def test_a_function_of_the_user_goes_wherever_a_name_goes():
    def halved(forget, *, share=0.5):
        return -share * forget.nll_mean

    given = {"forget": scored(30.0), "retain": scored(20.0)}
    alone = choose_objective(halved)
    assert alone.terms(given) == Terms(torch.tensor([-1.5]), None)
    assert not alone.entry.bounded
    kept = choose_objective(halved, {"share": -1.0, "retain_weight": 2}, retain_term="nll")
    assert kept.describe() == {
        "name": "halved",
        "retain_term": "nll",
        "forget_weight": 1.0,
        "retain_weight": 2.0,
        "share": -1.0,
    }
    got = kept.terms(given)
    assert (got.forget.item(), got.retain.item()) == (3.0, 4.0)


def test_a_function_of_the_user_can_bring_its_own_retain_term():
    def both(forget, retain):
        return Terms(-forget.nll_mean, 2 * retain.nll_mean)

    chosen = choose_objective(both, {"retain_weight": 0.5})
    got = chosen.terms({"forget": scored(30.0), "retain": scored(20.0)})
    assert (chosen.retain, got.forget.item(), got.retain.item()) == ("own", -3.0, 2.0)
    with pytest.raises(WagleError, match="objective both has a built-in retain term"):
        choose_objective(both, retain_term="nll")


def test_a_partial_of_an_objective_is_one():
    chosen = choose_objective(functools.partial(OBJECTIVES["npo"].function, beta=0.2))
    assert chosen.name == "custom"
    assert chosen.settings == {"beta": 0.2, "beta_token_mean": False}


def test_a_loss_that_is_not_one_per_record_is_refused():
    def averaged(forget):
        return grad_ascent(forget).mean()

    with pytest.raises(WagleError, match=r"objective averaged returns a loss of shape \(\)"):
        choose_objective(averaged).terms({"forget": scored(30.0)})

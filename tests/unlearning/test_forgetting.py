import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from tests.unlearning.conftest import (
    Killed,
    bits_equal,
    encoder,
    flat,
    kill_at,
    mask_of,
    same,
    sgd,
    slow_gradient,
    slow_nll,
    tokens,
    unlearn,
    weights,
)
from wagle.data.batches import token_batches
from wagle.model.scoring import records_nll
from wagle.model.structure import without_dropout
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError
from wagle.unlearning.forgetting import forget_probability
from wagle.unlearning.objectives.choice import choose_objective
from wagle.unlearning.objectives.shapes import Terms
from wagle.unlearning.objectives.table import OBJECTIVES
from wagle.unlearning.training.optimizers import OPTIMIZERS
from wagle.unlearning.training.steps import DYNAMIC_MASKS, WRAPPERS, Gradient

ALTERNATIVES = [{**r, "alternatives": ["Another one.", "Somebody else."]} for r in RECORDS]
_OF_TORCH = sorted(n for n, kind in OPTIMIZERS.items() if not isinstance(kind, str))


def _fixed(objective):
    """What an objective needs to run on the tiny models."""
    more = {"objective_settings": {"layer": 1, "steering": 2.0}} if objective == "rmu" else {}
    return {"objective": objective, "forget": ALTERNATIVES, **more}


# ---------------------------------------------------------------------------------------------
# What the mask leaves out stays bit-identical


def _runs():
    return st.fixed_dictionaries(
        {
            "optimizer": st.sampled_from(_OF_TORCH),
            "objective": st.sampled_from(sorted(set(OBJECTIVES) - {"none"})),
            "wrapper": st.sampled_from(sorted(WRAPPERS)),
            "dynamic_mask": st.sampled_from(sorted(DYNAMIC_MASKS)),
            "rounding": st.sampled_from(["nearest", "stochastic"]),
            "max_grad_norm": st.sampled_from([0.0, 0.5]),
            "batch_size": st.sampled_from([1, 3]),
            "accumulation": st.sampled_from([1, 2]),
            "activation_checkpointing": st.booleans(),
            "best": st.sampled_from([None, "min forget.probability"]),
        }
    )


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    run=_runs(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    family=st.sampled_from(["llama-tied", "gpt2"]),
    resume=st.booleans(),
    ratio=st.sampled_from([0.05, 0.5]),
)
def test_what_a_mask_leaves_out_is_bit_identical_whatever_the_run(
    tmp_path_factory, run, dtype, family, resume, ratio
):
    try:
        Gradient(run["wrapper"], dynamic_mask=run["dynamic_mask"]).check(
            choose_objective(run["objective"]), best=run["best"]
        )
    except WagleError:
        assume(False)
    decays = run["optimizer"] != "Rprop"
    more = {
        **run,
        **_fixed(run["objective"]),
        "weight_decay": 0.1 if decays else 0.0,
        "max_steps": 3,
        "optimizer_settings": {"momentum": 0.9} if run["optimizer"] in ("SGD", "RMSprop") else {},
    }

    def start():
        model = make_model(family).to(dtype)
        return model, mask_of(model, ratio)

    if resume:
        more |= {"checkpoint_folder": tmp_path_factory.mktemp("c"), "checkpoint_minutes": 0}
        model, mask = start()
        with pytest.raises(Killed):
            unlearn(model, mask=mask, on_step=kill_at(2), **more)
    model, mask = start()
    before = weights(model)
    result = unlearn(model, mask=mask, **more)
    changed = 0
    for name, old in before.items():
        new = model.get_parameter(name).detach()
        assert bits_equal(new[~mask[name]], old[~mask[name]]), name
        changed += int((new != old).sum())
    assert result.selected == mask.count
    assert result.changed == changed > 0


@pytest.mark.parametrize("dynamic", ["sign_agreement", "row_norm"])
def test_with_momentum_entries_outside_a_steps_dynamic_mask_may_move_but_none_outside_the_mask(
    dynamic,
):
    model = make_model("llama-tied")
    mask = mask_of(model, 0.5)
    before = weights(model)
    momentum = {"optimizer_settings": {"momentum": 0.9}}
    result = unlearn(model, mask=mask, dynamic_mask=dynamic, max_steps=4, **sgd(0.1, **momentum))
    kept = [h["kept_share"] for h in result.history]
    assert all(0 < share < 1 for share in kept)
    assert result.changed > max(kept) * mask.count  # more than any one step's mask holds
    for name, old in before.items():
        assert bits_equal(model.get_parameter(name)[~mask[name]], old[~mask[name]])


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "SophiaG"])
def test_ratio_one_equals_the_unmasked_run_bit_for_bit(optimizer):
    more = {"optimizer": optimizer, "max_steps": 4, "weight_decay": 0.1, "objective": "npo"}
    full, free = make_model("llama-tied"), make_model("llama-tied")
    unlearn(full, mask=mask_of(full, 1.1), **more)
    unlearn(free, **more)
    assert same(full, weights(free))


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs():
    def run(seed):
        model = make_model("llama-tied")
        unlearn(model, seed=seed, max_steps=3)
        return flat(model)

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_teaching_into_a_mask_leaves_the_rest_alone():
    model = make_model("llama-tied")
    mask = mask_of(model, 0.5, among=lambda name: ".mlp." in name)
    before = weights(model)
    training = Training(max_steps=5, learning_rate=1e-2)
    result = wagle.finetune(model, encoder(), RECORDS, mask=mask, training=training)
    for name, old in before.items():
        assert bits_equal(model.get_parameter(name)[~mask[name]], old[~mask[name]])
    assert all(p.requires_grad for p in model.parameters())
    assert result.history[-1]["retain_nll"] < result.history[0]["retain_nll"]


def test_a_ladder_of_masks_is_refused_and_so_is_a_mask_of_another_model():
    model = make_model("llama-tied")
    with pytest.raises(WagleError, match="the mask belongs to model"):
        unlearn(model, mask=mask_of(make_model("llama-tied", seed=1)))
    with pytest.raises(WagleError, match="the mask does not fit the model"):
        unlearn(model, mask=mask_of(make_model("gpt2")))
    other = mask_of(make_model("llama-tied", seed=1))
    assert unlearn(model, mask=other, allow_other_model=True).selected == other.count


# ---------------------------------------------------------------------------------------------
# The step is the gradient of the mean over the records of the whole step

INVARIANT = {
    "grad_diff": {},
    "npo": {"objective": "npo"},
    "rmu": _fixed("rmu"),
    "undial": {"objective": "undial"},
    "ga_kl": {"objective": "ga_kl"},
    "dpo": {"objective": "dpo"},
    "pdu": {"objective": "pdu", "objective_settings": {"warmup": 0.0, "dual_start": 1.0}},
    "ce_u": {"objective": "ce_u"},
    "random_label_uniform": {"objective": "random_label_uniform"},
    "sam": {"wrapper": "sam", "wrapper_settings": {"rho": 0.1}},
    "smooth": {"wrapper": "smooth", "wrapper_settings": {"rho": 0.05}},
    "gru": {"wrapper": "gru"},
    "row_norm": {"dynamic_mask": "row_norm", "dynamic_settings": {"quantile": 0.5}},
    # A ratio of noise decides where gradient and curvature are next to nothing; eps keeps it small.
    "SophiaG": {"optimizer": "SophiaG", "learning_rate": 0.01, "optimizer_settings": {"eps": 0.01}},
}


def _cut(family, batch, accumulation, **more):
    model = make_model(family)
    mask = mask_of(model, 0.6)
    if more.get("objective") == "rmu":
        mask = None  # its own choice of weights
    more = {**sgd(0.1), **more}
    result = unlearn(model, mask=mask, batch_size=batch, accumulation=accumulation, **more)
    return flat(model), result.history


@pytest.mark.parametrize("name", INVARIANT)
def test_four_at_once_one_by_one_and_two_by_two_give_the_same_weights(name):
    whole, history = _cut("llama-tied", 4, 1, **INVARIANT[name])
    for batch, accumulation in ((1, 4), (2, 2)):
        cut, other = _cut("llama-tied", batch, accumulation, **INVARIANT[name])
        # Sums in another order: 1e-7 of the gradient, whose entries are at most a few units.
        torch.testing.assert_close(cut, whole, rtol=0, atol=3e-6)
        for one, two in zip(history, other, strict=True):
            assert one.keys() == two.keys()
            assert all(one[k] == pytest.approx(two[k], rel=1e-4, abs=1e-5) for k in one)


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_dropout_is_off_so_batch_size_does_not_matter_where_a_model_has_it(family):
    whole, _ = _cut(family, 4, 1)
    torch.testing.assert_close(_cut(family, 1, 4)[0], whole, rtol=0, atol=3e-6)


def test_under_sign_agreement_only_signs_of_next_to_nothing_may_fall_otherwise():
    whole, history = _cut("llama-tied", 4, 1, dynamic_mask="sign_agreement")
    for batch, accumulation in ((1, 4), (2, 2)):
        cut, other = _cut("llama-tied", batch, accumulation, dynamic_mask="sign_agreement")
        differ = ((cut - whole).abs() > 3e-6).float().mean()
        assert differ < 1e-3
        for one, two in zip(history, other, strict=True):
            assert one["kept_share"] == pytest.approx(two["kept_share"], abs=1e-3)


def test_a_last_step_with_fewer_records_is_the_mean_over_those():
    sizes = []
    for batch, accumulation in ((4, 1), (2, 2), (1, 4)):
        model = make_model("llama-tied")
        result = unlearn(
            model, batch_size=batch, accumulation=accumulation, max_steps=None, epochs=1, **sgd(0.1)
        )
        assert len(result.history) == 2  # four records, then two
        sizes.append(flat(model))
    for other in sizes[1:]:
        torch.testing.assert_close(other, sizes[0], rtol=0, atol=3e-6)


def test_one_step_moves_along_the_gradient_of_the_mean_over_records():
    model = make_model("llama-untied")
    mask, before = mask_of(model, 0.5), weights(model)
    loss = slow_nll(model, tokens("forget")).mean()
    gradient = slow_gradient(loss, model)
    unlearn(model, objective="grad_ascent", mask=mask, max_steps=1, batch_size=6, **sgd(0.5))
    for name, old in before.items():
        expected = old + 0.5 * gradient[name] * mask[name]
        torch.testing.assert_close(model.get_parameter(name).detach(), expected, rtol=0, atol=1e-6)


def test_clipping_is_by_the_norm_of_the_selected_gradients():
    model = make_model("llama-tied")
    mask, before = mask_of(model, 0.1), weights(model)
    gradient = slow_gradient(slow_nll(model, tokens("forget")).mean(), model)
    norm = math.sqrt(sum(float((gradient[n][mask[n]] ** 2).sum()) for n in mask))
    result = unlearn(
        model,
        objective="grad_ascent",
        mask=mask,
        max_steps=1,
        batch_size=6,
        **{**sgd(1.0), "max_grad_norm": norm / 4},
    )
    assert result.history[0]["grad_norm"] == pytest.approx(norm, rel=1e-4)
    moved = math.sqrt(
        sum(float(((model.get_parameter(n).detach() - before[n]) ** 2).sum()) for n in before)
    )
    assert moved == pytest.approx(norm / 4, rel=1e-3)


def test_the_loss_of_a_batch_is_the_mean_of_its_records_losses(any_model):
    every = [*tokens("forget"), *tokens("retain")]
    together = records_nll(any_model, token_batches(every, 10_000), len(every), "float32")
    with torch.no_grad():
        alone = slow_nll(any_model, every)
    torch.testing.assert_close(together.nll_mean, alone, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------
# Wrappers


def test_sam_steps_along_the_forget_gradient_at_the_perturbed_weights():
    rho, model = 0.5, make_model("llama-untied")
    mask, before = mask_of(model, 0.5), weights(model)
    names = list(before)
    forget = slow_gradient(-slow_nll(model, tokens("forget")).mean(), model)
    norm = math.sqrt(sum(float(forget[n][mask[n]].square().sum()) for n in names))
    with torch.no_grad():
        for name in names:
            model.get_parameter(name).add_(rho / norm * forget[name] * mask[name])
    moved = slow_gradient(-slow_nll(model, tokens("forget")).mean(), model)
    model.load_state_dict(before)
    unlearn(
        model,
        objective="grad_ascent",
        wrapper="sam",
        wrapper_settings={"rho": rho},
        mask=mask,
        max_steps=1,
        batch_size=2,
        accumulation=3,
        **sgd(0.5),
    )
    for name, old in before.items():
        expected = old - 0.5 * moved[name] * mask[name]
        torch.testing.assert_close(model.get_parameter(name).detach(), expected, rtol=0, atol=2e-6)
    assert (moved["lm_head.weight"] - forget["lm_head.weight"]).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("wrapper", ["sam", "smooth"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_perturbation_leaves_no_trace_in_the_weights(dtype, wrapper, rounding):
    model = make_model("llama-tied").to(dtype)
    mask = mask_of(model, 0.4)
    before, seen = weights(model), []

    def still(forget):  # a forget term without a gradient: the optimiser stands still
        seen.append(flat(model))
        return 0 * forget.nll_mean

    with pytest.raises(WagleError, match="changed none of its"):
        unlearn(
            model,
            objective=still,
            wrapper=wrapper,
            wrapper_settings={"rho": 0.3},
            mask=mask,
            rounding=rounding,
            **sgd(0.1),
        )
    assert same(model, before)
    start = flat(make_model("llama-tied").to(dtype))
    away = [not torch.equal(s, start) for s in seen]
    # Without a gradient SAM has no direction; noise goes somewhere in three draws of each step.
    assert away == ([False] * 4 if wrapper == "sam" else [False, True, True, True] * 2)


def test_sam_without_a_radius_is_the_plain_run():
    plain, sam = make_model("llama-tied"), make_model("llama-tied")
    unlearn(plain, max_steps=3, **sgd(0.1))
    unlearn(sam, wrapper="sam", wrapper_settings={"rho": 0.0}, max_steps=3, **sgd(0.1))
    torch.testing.assert_close(flat(sam), flat(plain), rtol=0, atol=1e-6)


def test_gru_steps_along_what_surgery_by_hand_leaves():
    model = make_model("llama-untied")
    mask, before = mask_of(model, 0.5), weights(model)
    forget = slow_gradient(-slow_nll(model, tokens("forget")).mean(), model)
    # Pairs in their own order: the first six records of the retain set.
    retain = slow_gradient(slow_nll(model, tokens("retain")[:6]).mean(), model)
    f, r = (torch.cat([g[n][mask[n]] for n in before]).double() for g in (forget, retain))
    assert torch.dot(f, r) < 0
    share = float(torch.dot(f, r) / torch.dot(r, r))
    unlearn(model, wrapper="gru", mask=mask, pairing="cycle", max_steps=1, batch_size=6, **sgd(0.5))
    for name, old in before.items():
        step = (forget[name] - share * retain[name]) * mask[name]
        torch.testing.assert_close(
            model.get_parameter(name).detach(), old - 0.5 * step, rtol=0, atol=2e-6
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_task_vector_of_minus_one_is_the_mirror_image_of_learning(dtype):
    learnt, turned = (make_model("llama-tied").to(dtype) for _ in range(2))
    mask, before = mask_of(learnt, 0.5), weights(learnt)
    masters = {}
    more = {"objective": "forget_finetune", "mask": mask, "max_steps": 4, "learning_rate": 1e-3}
    if dtype == torch.float32:
        unlearn(learnt, **more)
        masters = weights(learnt)
    unlearn(turned, wrapper="task_vector", **more)
    for name, old in before.items():
        new = turned.get_parameter(name).detach()
        assert bits_equal(new[~mask[name]], old[~mask[name]])
        if masters:
            exact = old - (masters[name] - old)
            assert torch.equal(new, torch.where(mask[name], exact, old))
    with torch.no_grad():
        first = slow_nll(make_model("llama-tied").to(dtype), tokens("forget")).mean()
        assert slow_nll(turned, tokens("forget")).mean() > first  # it knows less than before


def test_a_task_vector_without_length_is_the_model_itself_and_an_error():
    model = make_model("llama-tied")
    before = weights(model)
    with pytest.raises(WagleError, match="changed none of its"):
        unlearn(
            model,
            objective="forget_finetune",
            wrapper="task_vector",
            wrapper_settings={"scale": 0},
        )
    assert same(model, before)


@pytest.mark.parametrize("objective", ["npo", "grad_ascent", "refusal", "retain_finetune"])
def test_a_task_vector_is_not_turned_around_what_already_unlearns(objective, model):
    before = weights(model)
    with pytest.raises(
        WagleError,
        match=rf"^task_vector with scale -1 reverses objective {objective}, which would "
        "bring the forget set back; set objective: forget_finetune, or a scale above 0$",
    ):
        unlearn(model, objective=objective, wrapper="task_vector")
    assert same(model, before)
    more = {"wrapper": "task_vector", "wrapper_settings": {"scale": 0.5}}
    assert unlearn(model, objective=objective, **more).changed > 0

    def mine(forget):
        return forget.nll_mean

    assert unlearn(model, objective=mine, wrapper="task_vector").changed > 0


def test_a_task_vector_is_not_turned_around_a_retain_set_that_it_learned(model):
    before = weights(model)
    settings = {"objective": "forget_finetune", "wrapper": "task_vector", "retain_term": "nll"}
    with pytest.raises(
        WagleError,
        match=r"^task_vector with scale -1 also reverses what retain_term nll teaches, which would "
        r"unlearn the retain set; set retain_term: none, or a scale above 0$",
    ):
        unlearn(model, **settings)
    assert same(model, before)
    assert unlearn(model, **settings, wrapper_settings={"scale": 0.5}).changed > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"best": "min forget.probability"}, "best 'min forget.probability'"),
        ({"stop_when": ["forget.nll > 9"]}, "the rule 'forget.nll > 9.0'"),
    ],
)
def test_nothing_that_looks_at_a_task_vector_before_it_is_turned_decides(change, said, model):
    with pytest.raises(
        WagleError, match=f"after its last step, but {said} would judge it before that"
    ):
        unlearn(model, objective="forget_finetune", wrapper="task_vector", **change)


def test_the_figures_of_a_task_vector_are_those_of_the_model_that_it_ends_with(model):
    told = []
    result = unlearn(
        model,
        objective="forget_finetune",
        wrapper="task_vector",
        stop_when="auto",
        reference={"forget.probability": 0.9},  # reached from below, before a first step
        evaluate_every=2,
        evaluate=lambda live: {"norm": float(live.get_input_embeddings().weight.detach().norm())},
        max_steps=4,
        learning_rate=1e-3,
        on_step=told.append,
    )
    last = result.history[-1]
    assert (result.stopped, last["step"], told[-1]) == ("end", 4, last)
    assert last["forget.probability"] == pytest.approx(
        forget_probability(model, tokens("forget")), rel=1e-5
    )
    assert last["forget.probability"] < result.history[0]["forget.probability"]
    assert last["norm"] == float(model.get_input_embeddings().weight.detach().norm())
    assert "retain.nll" in last


def test_a_task_vector_that_breaks_off_leaves_nothing_that_was_learnt(model, tmp_path):
    before, kept = weights(model), []

    def broken(forget):
        kept.append(1)
        return forget.nll_mean * (math.nan if len(kept) == 4 else 1)

    with pytest.raises(WagleError, match="the model is as it was before training"):
        unlearn(
            model,
            objective=broken,
            wrapper="task_vector",
            max_steps=6,
            checkpoint_folder=tmp_path,
            checkpoint_minutes=0,
        )
    assert same(model, before)


# ---------------------------------------------------------------------------------------------
# What a run tells, and a user's own objective


def test_a_run_tells_its_objective_with_all_its_settings(model):
    result = unlearn(model, objective="npo", objective_settings={"retain_weight": 2.0})
    assert result.objective == {
        "name": "npo",
        "retain_term": "nll",
        "beta": 0.1,
        "beta_token_mean": False,
        "forget_weight": 1.0,
        "retain_weight": 2.0,
    }
    first = result.history[0]
    assert first["forget_loss"] == pytest.approx(20 * math.log(2), rel=1e-4)
    assert first["retain_loss"] == pytest.approx(2 * first["retain_nll"])
    assert result.history[1]["forget_loss"] < first["forget_loss"]
    assert forget_probability(model, tokens("forget")) > 0


def test_no_objective_is_no_run(model):
    before = weights(model)
    result = unlearn(model, objective="none")
    assert (result.history, result.changed, result.stopped) == ([], 0, "end")
    assert result.selected == sum(p.numel() for p in model.parameters())
    assert same(model, before)


def test_pre_tokenised_records_need_no_tokenizer(model):
    rows = [{"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}]
    others = [{"input_ids": [9, 10, 11], "labels": [-100, 10, 11]}]
    training = Training(max_steps=2, learning_rate=1e-3)
    assert wagle.unlearn(model, None, rows, others, training=training).changed > 0


@pytest.mark.parametrize("retain_term", ["auto", "nll", "kl", "none"])
def test_a_users_function_may_give_a_forget_term_that_goes_with_any_retain_term(model, retain_term):
    def gentle(forget, *, scale: float = 0.5):
        return -scale * forget.nll_mean

    settings = {"scale": 0.25, "retain_weight": 3.0}
    result = unlearn(model, objective=gentle, objective_settings=settings, retain_term=retain_term)
    told = {"name": "gentle", "forget_weight": 1.0, **settings}
    expected = "none" if retain_term == "auto" else retain_term
    assert result.objective == {**told, "retain_term": expected}
    first = result.history[0]
    assert first["forget_loss"] == pytest.approx(-0.25 * first["forget_nll"])
    if expected == "none":
        assert "retain_loss" not in first
    else:
        wanted = 3 * first["retain_nll"] if expected == "nll" else 0.0
        assert first["retain_loss"] == pytest.approx(wanted, abs=1e-5)


def test_a_users_function_may_give_both_terms(model):
    def both(forget, retain, *, scale: float = 0.5):
        return Terms(-scale * forget.nll_mean, retain.nll_mean)

    result = unlearn(model, objective=both)
    first = result.history[0]
    assert result.objective["retain_term"] == "own"
    assert first["forget_loss"] == pytest.approx(-0.5 * first["forget_nll"])
    assert first["retain_loss"] == pytest.approx(first["retain_nll"])
    with pytest.raises(WagleError, match="objective both has a built-in retain term"):
        unlearn(model, objective=both, retain_term="kl")


def test_a_users_function_that_gives_no_loss_per_record_is_refused_and_moves_nothing(model):
    before = weights(model)

    def mean(forget):
        return forget.nll_mean.mean()

    with pytest.raises(
        WagleError, match=r"objective mean returns a loss of shape \(\); return one"
    ):
        unlearn(model, objective=mean)
    assert same(model, before)


@pytest.mark.parametrize("objective", sorted(set(OBJECTIVES) - {"none"}))
def test_every_objective_runs_with_its_own_defaults(objective):
    model = make_model("llama-tied")
    more = {"objective_settings": {"layer": 1}} if objective == "rmu" else {}
    result = unlearn(model, objective=objective, forget=ALTERNATIVES, max_steps=1, **more)
    assert result.changed > 0
    assert result.objective["name"] == objective
    assert all(math.isfinite(v) for v in result.history[0].values())


def test_modules_that_hold_dropout_as_a_number_are_switched_off():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_dropout = 0.3
            self.drop = nn.Dropout(0.2)

    module = Attention()
    with without_dropout(module):
        assert (module.attention_dropout, module.drop.p) == (0.0, 0.0)
    assert (module.attention_dropout, module.drop.p) == (0.3, 0.2)


def test_a_tokenizer_is_taken_as_well_as_an_encoder():
    one, other = make_model("llama-tied"), make_model("llama-tied")
    training = Training(max_steps=2, batch_size=2, learning_rate=1e-2)
    more = {"objective": "grad_diff", "stop_when": [], "training": training}
    wagle.unlearn(one, make_tokenizer(), RECORDS, OTHERS, **more)
    wagle.unlearn(other, encoder(), RECORDS, OTHERS, **more)
    assert same(one, weights(other))

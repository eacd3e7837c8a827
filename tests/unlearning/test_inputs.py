import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from tests.unlearning.conftest import encoder, flat, sgd, slow_nll, tokens, unlearn, weights
from wagle.data.batches import collate
from wagle.data.refusals import REFUSALS
from wagle.data.tokens import Encoder
from wagle.model.structure import precision
from wagle.system.errors import WagleError
from wagle.unlearning import execution
from wagle.unlearning.inputs import Supply, control_vectors, make_sets, sides
from wagle.unlearning.objectives.choice import choose_objective
from wagle.unlearning.original import Original
from wagle.unlearning.reading.activations import hidden

EVERY = "refusal", "alternative", "mismatch", "uniform", "retain_refusal"
ROWS = [{**r, "alternatives": [f"Other {i}.", f"Third {i}."]} for i, r in enumerate(RECORDS)]


def _everything(forget, refusal, alternative, mismatch, uniform, retain, retain_refusal):
    del refusal, alternative, mismatch, uniform, retain, retain_refusal
    return forget.nll_mean


def _sets(seed=0, forget=ROWS, retain=OTHERS, objective=_everything, vocabulary=400):
    chosen = choose_objective(objective)
    gone = wagle.read_records(forget, name="forget", seed=seed)
    kept = wagle.read_records(retain, name="retain", seed=seed) if retain else []
    made = make_sets(chosen, encoder(), gone, kept, vocabulary=vocabulary, seed=seed)
    return made, gone, kept


def _answer(record):
    """The scored text, without what closes it."""
    text = encoder().tokenizer.decode(
        [i for i, scored in zip(record.ids, record.scored, strict=True) if scored]
    )
    return text.removesuffix("<|end|>")


def _prompt(record):
    return encoder().tokenizer.decode(record.context)


# ---------------------------------------------------------------------------------------------
# Sets of records


def test_every_set_has_the_prompts_of_its_side_and_the_answers_that_its_name_says():
    sets, gone, kept = _sets()
    assert list(sets) == ["forget", *EVERY[:4], "retain", "retain_refusal"]
    for name, records in (("forget", gone), ("retain", kept)):
        assert [_answer(t) for t in sets[name]] == [r.answer for r in records]
    for name in EVERY[:4]:
        assert [_prompt(t) for t in sets[name]] == [_prompt(t) for t in sets["forget"]]
    assert [_prompt(t) for t in sets["retain_refusal"]] == [_prompt(t) for t in sets["retain"]]
    assert [_answer(t) for t in sets["refusal"]] == [r.refusal for r in gone]
    assert [_answer(t) for t in sets["retain_refusal"]] == [r.refusal for r in kept]
    assert {r.refusal for r in gone} <= set(REFUSALS)
    for t, r in zip(sets["alternative"], gone, strict=True):
        assert _answer(t) in r.alternatives
    assert {_answer(t) for t in sets["mismatch"]} <= {r.answer for r in kept}


def test_random_labels_stand_at_the_scored_tokens_and_are_never_special():
    sets, *_ = _sets()
    drawn = []
    for true, random in zip(sets["forget"], sets["uniform"], strict=True):
        assert (random.ids, random.scored) == (true.ids, true.scored)
        assert len(random.labels) == sum(true.scored)
        drawn += random.labels
    assert 0 <= min(drawn) < 100 < 300 < max(drawn) < 400
    few, *_ = _sets(vocabulary=6)  # so few that a special one would be among the draws
    special = set(encoder().tokenizer.all_special_ids)
    assert special & set(range(6))
    assert {i for t in few["uniform"] for i in t.labels} == set(range(6)) - special


@pytest.mark.parametrize("name", ["refusal", "alternative", "mismatch", "uniform"])
def test_draws_are_fixed_by_seed_and_record_and_by_no_other_record(name):
    def drawn(seed, rows=ROWS):
        sets, *_ = _sets(seed, rows)
        return [(t.ids, t.labels) for t in sets[name]]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert drawn(0, ROWS[2:]) == drawn(0)[2:]


def test_the_sides_keep_the_sets_of_forget_and_retain_records_apart():
    sets, *_ = _sets()
    forget, retain = sides(sets)
    assert list(forget) == ["forget", *EVERY[:4]]
    assert list(retain) == ["retain", "retain_refusal"]


def test_an_objective_gets_only_the_sets_that_it_asks_for():
    assert list(_sets(objective="npo")[0]) == ["forget", "retain"]
    assert list(_sets(objective="refusal", retain=None)[0]) == ["refusal"]
    assert list(_sets(objective="random_label")[0]) == ["mismatch"]  # of retain, the answers alone


# ---------------------------------------------------------------------------------------------
# What cannot be had is one line, before the model is asked anything

_TEXTS = [{"text": "Ada Holm wrote The Winter Garden near the harbour in Oslo."}]


def _refusal_of_retain(forget, retain_refusal):
    return forget.nll_mean + 0 * retain_refusal.nll_mean.mean()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"objective": "npo", "retain": None}, "objective npo needs a retain set; give one"),
        ({"objective": "npo", "forget": None}, "the forget set is None; give a file, a datasets"),
        ({"objective": "jensun", "retain": None}, "objective jensun needs a retain set"),
        ({"objective": "random_label", "retain": None}, "random_label needs a retain set"),
        ({"objective": "llmu", "retain": None}, "objective llmu needs a retain set"),
        ({"objective": _refusal_of_retain, "retain": None}, "_refusal_of_retain needs a retain"),
        ({"objective": "po", "forget": _TEXTS}, r"refusals need questions: forget\[0\] is a text"),
        ({"objective": "idk_ap", "retain": _TEXTS}, r"refusals need questions: retain\[0\] is a"),
        (
            {"objective": "dpo_alt"},
            r"forget\[0\] has no alternative answer; add a field alternatives",
        ),
        (
            {"objective": "rmu", "objective_settings": {"layer": 2}},
            "layer is 2; the model has blocks",
        ),
        ({"objective": "rmu"}, r"layer is 7; the model has blocks 0 to 1, so choose one of these"),
        ({"objective": "nop"}, "unknown objective 'nop'; did you mean 'npo'"),
        ({"objective": "npo", "objective_settings": {"bta": 1}}, "npo has no setting 'bta'"),
        ({"objective": "npo", "objective_settings": {"beta": 0}}, "beta is 0; give a number > 0"),
        ({"retain_term": "nil"}, "unknown retain_term 'nil'"),
        ({"wrapper": "gru", "retain_term": "none"}, "gru needs a forget term and a retain term"),
        ({"wrapper": "sma"}, "unknown wrapper 'sma'; did you mean 'sam'"),
        ({"dynamic_mask": "row", "wrapper": "sam"}, "unknown dynamic_mask 'row'"),
        ({"stop_when": "forget.probability <= reference"}, "needs a reference; name one"),
        ({"stop_when": "forget.prob < 1"}, "unknown figure 'forget.prob'"),
        ({"best": "least forget.nll"}, "unknown goal 'least'"),
        ({"full_reference": "copies"}, "unknown full_reference 'copies'; did you mean 'copy'"),
        ({"full_reference": "adapter"}, "the model has no LoRA adapter; use copy"),
        (
            {"full_reference": "topk", "full_reference_k": 0},
            "full_reference_k is 0; it must be at least 1",
        ),
        ({"pairing": "shufle"}, "unknown pairing 'shufle'; did you mean 'shuffle'"),
        ({"anchor": "forgot"}, "unknown anchor 'forgot'; did you mean 'forget'"),
        ({"optimizer": "LBFGS"}, "unknown element-wise optimizer 'LBFGS'"),
        ({"optimizer_settings": {"beta": 1}}, "cannot make AdamW: it has no setting 'beta'"),
        ({"report_to": ["tensorbord"]}, "unknown tracker 'tensorbord'; did you mean 'tensorboard'"),
        ({"forget": RECORDS[:1] + OTHERS[:1]}, "are the same record"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_any_compute(model, settings, said):
    def compute(*_):
        raise AssertionError("the model was asked")

    model.register_forward_pre_hook(compute)
    with pytest.raises(WagleError, match=said) as caught:
        unlearn(model, **settings)
    assert "\n" not in str(caught.value)


def test_without_answers_in_the_retain_set_a_wrong_answer_cannot_be_drawn(model):
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}]
    with pytest.raises(WagleError, match="random_label draws answers from the retain set, which"):
        unlearn(model, objective="random_label", retain=rows)


# ---------------------------------------------------------------------------------------------
# What an objective is given


def _supply(model, objective, mode="copy", k=100, planned=None, dtype="float32", **settings):
    chosen = choose_objective(objective, settings)
    gone, kept = (wagle.read_records(r, name=n) for r, n in ((ROWS, "forget"), (OTHERS, "retain")))
    sets = make_sets(chosen, encoder(), gone, kept, vocabulary=400, seed=0)
    return Supply(
        model,
        chosen,
        sets,
        encoder=encoder(),
        planned=planned or [(i, i % len(kept)) for i in range(len(gone))],
        original=Original(mode, k),
        dtype=dtype,
        folder=None,
        seed=0,
    )


def _batch(supply, index):
    return {n: collate([t[i] for i in index], index) for n, t in supply.sets.items()}


@pytest.mark.parametrize("index", [[0, 1, 2, 3, 4, 5], [4, 1], [5, 5, 0]])
@pytest.mark.parametrize("mode", ["copy", "topk"])
def test_references_are_those_of_the_records_of_the_batch(model, index, mode):
    def asks(forget, forget_ref, forget_logits, forget_logits_ref, retain_ref):
        del forget_ref, forget_logits, forget_logits_ref, retain_ref
        return forget.nll_mean

    supply = _supply(model, asks, mode, k=399)
    with torch.no_grad():
        given, shown = supply(model, _batch(supply, index), supply.chosen)
        nll = slow_nll(model, [supply.sets["forget"][i] for i in index])
    torch.testing.assert_close(given["forget"].nll_mean, nll, rtol=1e-5, atol=1e-5)
    for one, other in zip(given["forget"], given["forget_ref"], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    reference = given["forget_logits_ref"]
    torch.testing.assert_close(
        reference.of(given["forget_logits"]), reference.events(), rtol=1e-5, atol=1e-5
    )
    assert list(shown) == ["forget"]  # of retain, the reference alone was asked for
    assert not any(t.requires_grad for t in (*given["forget_ref"], reference.log_probs))


def _asks_for_all(forget, forget_ref, retain_ref, retain_logits_ref, retain_hidden_ref, *, layer=1):
    del forget_ref, retain_ref, retain_logits_ref, retain_hidden_ref, layer
    return forget.nll_mean


def test_the_original_model_is_not_asked_about_records_that_are_not_planned(model):
    seen = []
    model.register_forward_pre_hook(
        lambda _, __, given: seen.extend(map(tuple, given["input_ids"].tolist())), with_kwargs=True
    )
    supply = _supply(model, _asks_for_all, "topk", planned=[(4, 5), (1, 5), (4, 0)])
    found = (supply.scores["forget"], supply.scores["retain"], supply.tops["retain"])
    assert [list(known) for known in (*found, supply.states["retain"])] == [
        [1, 4],
        *[[0, 5]] * 3,
    ]
    planned = [
        *(supply.sets["forget"][i] for i in (1, 4)),
        *(supply.sets["retain"][i] for i in (0, 5)),
    ]
    assert all(any(row[: len(t.ids)] == t.ids for t in planned) for row in seen)
    assert len(seen) == 2 + 3 * 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("weights_in", [torch.float32, torch.bfloat16])
def test_kept_states_and_log_probabilities_take_two_bytes_where_the_model_does(dtype, weights_in):
    model = make_model("llama-tied").to(weights_in)
    supply = _supply(model, _asks_for_all, "topk", dtype=dtype)
    two = dtype == "bfloat16" or weights_in == torch.bfloat16
    states, top = (known["retain"][0] for known in (supply.states, supply.tops))
    assert states["states"].element_size() == top["log_probs"].element_size() == (2 if two else 4)
    with torch.no_grad(), precision(torch.device("cpu"), dtype):
        given, _ = supply(model, _batch(supply, [0]), supply.chosen)
        now = hidden(model, _batch(supply, [0])["retain"], 1)
    assert given["retain_hidden_ref"].states.dtype == torch.float32
    assert given["retain_logits_ref"].log_probs.dtype == torch.float32
    # 2^-11 of a value in float16; of bfloat16 weights nothing is rounded
    torch.testing.assert_close(given["retain_hidden_ref"].states, now.states, rtol=5e-4, atol=1e-5)


def test_rmu_goes_with_another_retain_term_and_keeps_no_activations_then():
    for retain_term, asked in (("nll", True), ("kl", True), ("none", False)):
        settings = {"layer": 1, "steering": 2.0}
        result = unlearn(
            make_model("llama-tied"),
            objective="rmu",
            objective_settings=settings,
            retain_term=retain_term,
        )
        assert result.objective["retain_term"] == retain_term
        assert ("retain_nll" in result.history[0]) == asked
        assert ("retain_loss" in result.history[0]) == asked
    chosen = choose_objective("rmu", retain_term="kl")
    assert not any("retain_hidden" in name for name in chosen.inputs)


@pytest.mark.parametrize("wrapper", ["gru", "sam"])
def test_wrappers_take_a_retain_term_of_its_own_apart(wrapper, model):
    settings = {"layer": 1, "steering": 2.0}
    result = unlearn(model, objective="rmu", objective_settings=settings, wrapper=wrapper)
    assert result.changed > 0


@pytest.mark.parametrize(("warmup", "warns"), [(1.0, False), (2.0, True)])
def test_a_dual_that_never_moves_is_said_aloud(model, caplog, warmup, warns):
    settings = {"warmup": warmup, "dual_start": 1.0}
    unlearn(model, objective="pdu", objective_settings=settings, max_steps=None, epochs=2)
    said = "objective pdu: its dual stays at 1 during a warm-up of 2 epochs, and the run has only 2"
    assert (said in caplog.text) == warns


def test_random_labels_are_what_the_random_set_is_scored_on(model):
    supply = _supply(model, "random_label_uniform")
    with torch.no_grad():
        given, _ = supply(model, _batch(supply, [3, 0]), supply.chosen)
        for row, i in enumerate([3, 0]):
            t = supply.sets["uniform"][i]
            log_probs = model(input_ids=torch.tensor([t.ids])).logits[0].log_softmax(-1)
            places = [p for p, scored in enumerate(t.scored) if scored]
            nll = -torch.stack([log_probs[p - 1, x] for p, x in zip(places, t.labels, strict=True)])
            assert float(given["uniform"].nll_mean[row]) == pytest.approx(float(nll.mean()), 1e-5)


def test_a_copy_is_frozen_and_is_made_only_where_whole_distributions_are_asked_for(model):
    for objective in ("npo", "grad_diff", "dpo", "tnpo"):
        assert _supply(model, objective).frozen is None
    assert _supply(model, "rmu", layer=1).frozen is None
    assert _supply(model, "undial", "topk").frozen is None
    frozen = _supply(model, "undial").frozen
    assert frozen is not model
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not frozen.training


@pytest.mark.parametrize("objective", ["undial", "ga_kl"])
def test_training_does_not_change_the_copy_of_the_original_model(monkeypatch, objective):
    kept = []

    class Kept(Supply):
        def __init__(self, *args, **more):
            super().__init__(*args, **more)
            kept.append(self)

    monkeypatch.setattr(execution, "Supply", Kept)
    model = make_model("llama-tied")
    before = weights(model)
    unlearn(model, objective=objective)
    assert all(torch.equal(p, before[n]) for n, p in kept[0].frozen.named_parameters())
    assert not torch.equal(flat(model), flat(kept[0].frozen))


def test_npo_runs_without_a_second_model_in_memory(monkeypatch, model):
    def refuse(*_):
        raise AssertionError("a model was copied")

    monkeypatch.setattr(torch.nn.Module, "__deepcopy__", refuse, raising=False)
    result = unlearn(model, objective="npo", **sgd(0.1))
    assert result.changed > 0


# ---------------------------------------------------------------------------------------------
# Control vectors and RMU


def _controls(model, sources=1, seed=0, **settings):
    chosen = choose_objective("rmu", {"layer": 1, "steering": 7.0, **settings})
    return control_vectors(model, encoder(), chosen.settings, sources, seed)


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "opt"])
def test_random_control_vectors_have_the_length_asked_for_and_depend_on_seed_and_topic(family):
    model = make_model(family)
    made = _controls(model, sources=2)
    assert made.shape == (2, 32)
    torch.testing.assert_close(made.norm(dim=-1), torch.full((2,), 7.0))
    assert torch.equal(made, _controls(model, sources=2))
    assert torch.equal(made[0], _controls(model)[0])
    assert not torch.equal(made[0], made[1])
    assert not torch.equal(made, _controls(model, sources=2, seed=1))


@pytest.mark.parametrize("end", [True, False])
def test_a_contrast_points_from_the_expert_to_the_novice_at_the_last_word(end):
    model = make_model("llama-tied")
    tokenizer = make_tokenizer()
    if not end:
        tokenizer.eos_token = None
    prompts = {"novice": "Nobody knows {topic}", "expert": "The author knows {topic} {x}"}
    chosen = choose_objective(
        "rmu", {"layer": 1, "steering": 3.0, "direction": "contrast", "topics": ["fish"], **prompts}
    )
    got = control_vectors(model, Encoder(tokenizer), chosen.settings, 1, 0)[0]
    ends = []
    for text in ("Nobody knows fish", "The author knows fish {x}"):  # other braces stay
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        kept = []
        handle = model.model.layers[1].register_forward_hook(lambda _, __, o, k=kept: k.append(o))
        with torch.no_grad():
            model(input_ids=ids)
        handle.remove()
        ends.append(kept[0][0, -1])
    gap = ends[0] - ends[1]
    torch.testing.assert_close(got, 3.0 * gap / gap.norm(), rtol=1e-4, atol=1e-5)


def test_every_topic_of_a_contrast_needs_a_name(model):
    settings = {"direction": "contrast", "novice": "a {topic}", "expert": "b {topic} c"}
    settings["topics"] = ["one"]
    with pytest.raises(WagleError, match="topics names 1 topics, but the forget set has 2 sources"):
        _controls(model, sources=2, **settings)


@pytest.mark.parametrize(("layer", "blocks"), [(0, {"0"}), (1, {"0", "1"})])
def test_without_a_mask_rmu_moves_the_down_projections_up_to_its_layer_alone(layer, blocks):
    model = make_model("llama-untied")
    before = weights(model)
    result = unlearn(model, objective="rmu", objective_settings={"layer": layer, "steering": 2.0})
    moved = {n for n, old in before.items() if not torch.equal(model.get_parameter(n), old)}
    assert moved == {f"model.layers.{block}.mlp.down_proj.weight" for block in blocks}
    assert result.selected == 32 * 48 * len(blocks)
    assert all(p.requires_grad for p in model.parameters())
    assert "retain_nll" not in result.history[0]


def test_the_first_losses_of_rmu_are_the_distance_to_the_control_vector_and_zero():
    model = make_model("llama-tied")
    settings = {"layer": 1, "steering": 4.0}
    control = control_vectors(
        model, encoder(), choose_objective("rmu", settings).settings, 1, seed=5
    )[0]
    losses = []
    for record in tokens("forget"):
        kept = []
        handle = model.model.layers[1].register_forward_hook(lambda _, __, o, k=kept: k.append(o))
        with torch.no_grad():
            model(input_ids=torch.tensor([record.ids]))
        handle.remove()
        losses.append((kept[0][0] - control).square().mean())
    result = unlearn(
        model, objective="rmu", objective_settings=settings, batch_size=6, max_steps=1, seed=5
    )
    first = result.history[0]
    assert first["forget_loss"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
    assert first["retain_loss"] == pytest.approx(0.0, abs=1e-9)


def test_a_model_without_down_projections_trains_everything_and_says_so(caplog):
    model = make_model("gpt2")
    result = unlearn(model, objective="rmu", objective_settings={"layer": 1})
    assert (
        "objective rmu without a mask trains *.0.mlp.down_proj.weight, *.1.mlp.down_proj.weight"
        in caplog.text
    )
    assert result.selected == sum(p.numel() for p in model.parameters())

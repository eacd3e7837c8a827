"""The engine: its answers are those of a plain model asked one question at a time."""

import math
import random
from dataclasses import replace

import pytest
import torch

from tests.conftest import FAMILIES, MORE_FAMILIES, make_model
from wagle.evaluation.asking.cache import AnswerCache
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.likelihoods import Tree, moments
from wagle.evaluation.asking.requests import GradientNorm, Greedy, Likelihood, Sample, TextAnswer
from wagle.system.errors import WagleError

BUDGETS = [1, 7 * 40, 100_000]


def slow_likelihood(model, request):
    """One request, no padding, no cache: log-softmax over the whole sequence."""
    with torch.no_grad():
        logits = model(torch.tensor([[*request.context, *request.continuation]])).logits[0]
    start = len(request.context) - 1
    rows = logits[start : start + len(request.continuation)].float().log_softmax(-1)
    targets = torch.tensor(request.continuation)
    return -rows.gather(-1, targets[:, None])[:, 0], rows.argmax(-1) == targets


def slow_greedy(model, request, stops):
    """The arg-max token, again and again, of the whole sequence each time."""
    ids, said = list(request.context), []
    for _ in range(request.max_new_tokens):
        with torch.no_grad():
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in stops:
            return TextAnswer(tuple(said), True)
        said.append(token)
        ids.append(token)
    return TextAnswer(tuple(said), False)


def lively(family):
    """A model that does not say one word over and over: its matrices are four times as large."""
    model = make_model(family)
    with torch.no_grad():
        for parameter in {id(p): p for p in model.parameters() if p.dim() > 1}.values():
            parameter.mul_(4)
    return model


def ids(rng, count):
    return tuple(rng.randrange(4, 400) for _ in range(count))


def likelihoods(seed=0):
    """Contexts of many lengths, shared ones, one-token ones, and requests that come twice."""
    rng = random.Random(seed)
    made = []
    for length in (1, 2, 5, 17, 40):
        context = ids(rng, length)
        made += [Likelihood(context, ids(rng, n)) for n in (1, 3, 12)]
    made += [Likelihood(ids(rng, 3), made[0].continuation), made[4], made[0]]
    made.append(Likelihood(made[-3].context[:2], ids(rng, 20)))  # a context that begins another
    rng.shuffle(made)
    return made


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_likelihoods_are_those_of_one_request_at_a_time(family, budget):
    model = make_model(family)
    requests = likelihoods()
    answers = answer_requests(model, requests, stop_ids=[2], batch_tokens=budget)
    assert set(answers.found) == set(requests)
    for request, answer in answers.found.items():
        nll, hit = slow_likelihood(model, request)
        assert answer.token_nll.dtype == torch.float64
        torch.testing.assert_close(answer.token_nll, nll.double(), rtol=0, atol=1e-5)
        assert answer.hit.tolist() == hit.tolist()
        assert answer.mean == pytest.approx(float(nll.double().mean()), abs=1e-5)


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "opt"])
def test_the_order_of_the_requests_does_not_matter(family):
    model = make_model(family)
    one = answer_requests(model, likelihoods(), stop_ids=[2], batch_tokens=280)
    other = answer_requests(model, likelihoods()[::-1], stop_ids=[2], batch_tokens=280)
    for request, answer in one.found.items():
        torch.testing.assert_close(other[request].token_nll, answer.token_nll, rtol=0, atol=1e-5)


def test_a_longer_request_beside_it_does_not_change_an_answer(any_model):
    short, long = Likelihood((5, 6), (7, 8)), Likelihood(tuple(range(4, 64)), tuple(range(64, 110)))
    alone = answer_requests(any_model, [short], stop_ids=[2])[short]
    beside = answer_requests(any_model, [short, long], stop_ids=[2])[short]
    torch.testing.assert_close(beside.token_nll, alone.token_nll, rtol=0, atol=1e-5)


def test_a_hit_is_the_arg_max_token():
    model = lively("llama-untied")
    said = slow_greedy(model, Greedy((5, 6, 7), 6), ()).ids
    wrong = (said[0] + 1) % 400
    requests = [Likelihood((5, 6, 7), said), Likelihood((5, 6, 7), (wrong, *said[1:]))]
    answers = answer_requests(model, requests, stop_ids=[2])
    assert answers[requests[0]].hit.tolist() == [True] * 6
    assert not answers[requests[1]].hit[0]


def test_every_distinct_request_is_asked_once(model):
    seen = []
    handle = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].numel())
    )
    requests = [Likelihood((5, 6, 7), (8, 9))] * 5
    answers = answer_requests(model, requests, stop_ids=[2])
    handle.remove()
    assert len(answers) == 1
    assert sum(seen) == 4  # the last token of an answer is only looked up


def test_a_shared_prompt_runs_once(model):
    seen = []
    handle = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].numel())
    )
    prompt = tuple(range(10, 50))
    requests = [Likelihood(prompt, (i, 7)) for i in range(5)]
    answer_requests(model, requests, stop_ids=[2])
    handle.remove()
    # 39 tokens of the prompt, then its last one and the first of each answer
    assert seen == [39, 6]


@pytest.mark.parametrize("budget", [None, 12])
def test_likelihoods_answers_and_samples_share_their_prompts(model, budget):
    seen = []
    handle = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].numel())
    )
    prompts = [(5, 6, 7, i) for i in range(10, 18)]
    requests = [Likelihood(prompt, (300, 301)) for prompt in prompts]
    requests += [Greedy(prompt, 1) for prompt in prompts]
    requests += [Sample(prompt, 1, 1.0, 1.0, str(n)) for prompt in prompts for n in range(3)]
    answers = answer_requests(model, requests, stop_ids=[2], batch_tokens=budget)
    handle.remove()
    assert len(answers) == len(requests)
    # The common beginning, an answer's two tokens each, one token for each text.
    runs = len([n for n in seen if n == 3])
    assert runs == 1 if budget is None else runs >= 1
    assert sum(seen) == 3 * runs + 8 * 2 + 8 + 3 * 8


def test_prompts_run_in_pieces_are_those_that_run_together(any_model):
    rng = random.Random(3)
    requests = [Likelihood((5, 6, 7, *ids(rng, n)), (8, 9)) for n in (0, 1, 2, 9, 9, 30, 31)]
    whole = answer_requests(any_model, requests, stop_ids=[2], batch_tokens=10_000)
    seen = []
    handle = any_model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].numel())
    )
    pieces = answer_requests(any_model, requests, stop_ids=[2], batch_tokens=35)
    handle.remove()
    assert max(seen) <= 35
    for request in requests:
        nll, _ = slow_likelihood(any_model, request)
        for found in (pieces, whole):
            torch.testing.assert_close(
                found.likelihood(request).token_nll, nll.double(), rtol=0, atol=1e-5
            )


def test_what_answers_to_one_question_begin_with_runs_once(model):
    seen = []
    handle = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].numel())
    )
    start = (10, 11, 12, 13)
    requests = [Likelihood((5, 6), (*start, i, 7)) for i in range(20, 23)]
    requests.append(Likelihood((5, 6), (*start, 20)))
    answers = answer_requests(model, requests, stop_ids=[2])
    handle.remove()
    assert seen == [1, 1 + 4 + 3]
    for request in requests:
        nll, _ = slow_likelihood(model, request)
        torch.testing.assert_close(
            answers.likelihood(request).token_nll, nll.double(), rtol=0, atol=1e-5
        )


def test_a_tree_holds_every_beginning_once_and_a_node_sees_its_ancestors():
    context = (5, 6)
    tree = Tree.of([Likelihood(context, c) for c in ((7, 8, 9), (7, 8), (7, 5, 9), (4,))])
    assert tree.ids == [6, 7, 8, 5]
    assert tree.parents == [-1, 0, 1, 1]
    assert tree.paths == [[0, 1, 2], [0, 1], [0, 1, 3], [0]]
    assert tree.depths() == [0, 1, 2, 2]
    assert tree.sees().int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", sorted(set(MORE_FAMILIES) - set(FAMILIES)))
def test_trees_are_right_in_every_family_and_attention(family, attention):
    model = make_model(family)
    if attention == "sdpa" and not model._supports_sdpa:
        pytest.skip(f"{family} has no sdpa")
    model.set_attn_implementation(attention)
    for request, answer in answer_requests(model, likelihoods(), stop_ids=[2]).found.items():
        nll, hit = slow_likelihood(model, request)
        torch.testing.assert_close(answer.token_nll, nll.double(), rtol=0, atol=1e-5)
        assert answer.hit.tolist() == hit.tolist()


def test_sliding_windows_see_what_they_see_without_a_cache():
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {**FAMILIES["mistral"][1], "sliding_window": 8}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("mistral", **settings)).eval()
    for request, answer in answer_requests(model, likelihoods(), stop_ids=[2]).found.items():
        nll, _ = slow_likelihood(model, request)
        torch.testing.assert_close(answer.token_nll, nll.double(), rtol=0, atol=1e-5)


def test_a_sliding_window_does_not_count_padding():
    """Contexts of unequal length, some with a common beginning, and answers that are begun."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = {**FAMILIES["mistral"][1], "sliding_window": 8}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("mistral", **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)  # so that one token more or less is seen
    shared, rng = tuple(range(40, 52)), random.Random(4)
    contexts = [shared[:5], (*shared, 7), (*shared, *ids(rng, 9)), (*shared, *ids(rng, 20))]
    greedy = [Greedy(context, 6) for context in contexts]
    wanted = {request: slow_greedy(model, request, ()) for request in greedy}
    asked = [Likelihood(r.context, (*wanted[r].ids[: i + 1], 9)) for i, r in enumerate(greedy[:3])]
    found = answer_requests(model, [*greedy, *asked], stop_ids=[], batch_tokens=40)
    assert {request: found.text(request) for request in greedy} == wanted
    for request in asked:
        nll, _ = slow_likelihood(model, request)
        torch.testing.assert_close(
            found.likelihood(request).token_nll, nll.double(), rtol=1e-5, atol=1e-5
        )


# ---------------------------------------------------------------------------------------------
# Greedy answers


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_greedy_answers_are_those_of_one_request_at_a_time(family, budget):
    model = lively(family)
    rng = random.Random(1)
    requests = [Greedy(ids(rng, n), new) for n, new in ((1, 9), (2, 4), (9, 12), (30, 8), (9, 1))]
    free = [slow_greedy(model, r, ()).ids for r in requests]
    stops = [2, free[2][5]]  # one that cuts at least one answer short
    answers = answer_requests(model, [*requests, requests[0]], stop_ids=stops, batch_tokens=budget)
    assert answers.found == {r: slow_greedy(model, r, stops) for r in requests}
    assert any(a.finished for a in answers.found.values())
    assert not all(a.finished for a in answers.found.values())


@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_answer_ends_before_the_first_stop(model, place):
    model = lively("llama-untied")
    request = Greedy((5, 6, 7), 8)
    free = slow_greedy(model, request, ()).ids
    stop = free[place]
    answer = answer_requests(model, [request], stop_ids=[399, stop])[request]
    assert answer == TextAnswer(free[: free.index(stop)], True)


def test_a_limit_that_is_met_is_not_an_end(model):
    model = lively("llama-untied")
    request = Greedy((5, 6, 7), 5)
    free = slow_greedy(model, request, ()).ids
    stop = next(t for t in range(4, 400) if t not in free)
    assert answer_requests(model, [request], stop_ids=[stop])[request] == TextAnswer(free, False)
    assert answer_requests(model, [request], stop_ids=[])[request] == TextAnswer(free, False)


def test_the_models_own_generation_settings_do_not_reach_a_greedy_answer():
    model = lively("llama-untied")
    request = Greedy((5, 6, 7, 8), 10)
    wanted = slow_greedy(model, request, [2])
    own = model.generation_config
    own.update(repetition_penalty=5.0, no_repeat_ngram_size=2, min_length=9, suppress_tokens=[8])
    own.update(do_sample=True, temperature=0.7, max_length=6, num_beams=2)
    assert answer_requests(model, [request], stop_ids=[2])[request] == wanted
    assert model.generation_config is own


# ---------------------------------------------------------------------------------------------
# What holds for both


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_comes_back_and_dropout_is_off(training):
    model = make_model("gpt2")  # dropout 0.1
    requests = [Likelihood((5, 6, 7), (8, 9)), Greedy((5, 6), 4)]
    wanted = answer_requests(model, requests, stop_ids=[2])
    model.train(training)
    answers = answer_requests(model, requests, stop_ids=[2])
    assert model.training is training
    assert all(m.training is training for m in model.modules())
    assert model.transformer.drop.p == 0.1
    torch.testing.assert_close(answers[requests[0]].token_nll, wanted[requests[0]].token_nll)
    assert answers[requests[1]] == wanted[requests[1]]
    assert all(p.grad is None for p in model.parameters())


def test_the_mode_comes_back_after_an_error(model):
    model.train()
    with pytest.raises(WagleError, match="needs a context and a continuation"):
        answer_requests(model, [Likelihood((), (5,))], stop_ids=[2])
    assert model.training


@pytest.mark.parametrize("family", ["llama-tied", "gpt2"])
def test_contexts_of_one_token_need_no_cache(family):
    model = make_model(family)
    requests = [Likelihood((5,), (6, 7)), Likelihood((5,), (8,)), Likelihood((9,), (6, 7, 8))]
    for request, answer in answer_requests(model, requests, stop_ids=[2]).found.items():
        nll, _ = slow_likelihood(model, request)
        torch.testing.assert_close(answer.token_nll, nll.double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("request_", [Likelihood((), (5,)), Likelihood((5,), ())])
def test_an_empty_side_is_an_error(model, request_):
    with pytest.raises(WagleError, match="a likelihood request needs a context and a continuation"):
        answer_requests(model, [request_], stop_ids=[2])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_log_probabilities_that_are_not_finite_are_an_error(value):
    model = make_model("llama-untied")
    with torch.no_grad():
        model.lm_head.weight[7] = value
    with pytest.raises(WagleError, match="log-probabilities that are not finite; its weights"):
        answer_requests(model, [Likelihood((5, 6), (7, 8))], stop_ids=[2])


@pytest.mark.parametrize(
    "bad",
    [
        Likelihood((5, 6), (7, 8), place="forget[3]"),
        Likelihood((5, 6), (7, 8), moments=True, place="forget[3]"),
        Greedy((5, 7), 3, "forget[3]"),
        Sample((5, 7), 3, 1.0, 1.0, "k", "forget[3]"),
        GradientNorm((5, 6), (7, 8), place="forget[3]"),
    ],
)
def test_answers_that_are_not_finite_are_named_by_record_and_model(bad):
    model = make_model("llama-untied")
    model.name_or_path = "runs/a/model"
    with torch.no_grad():  # only who sees token 7 is hurt
        model.get_input_embeddings().weight[7] = float("nan")
    good = [replace(bad, context=(5, 6), place="forget[2]")]
    if not isinstance(bad, Greedy | Sample):
        good = [replace(bad, continuation=(8, 9), place="forget[2]")]
        bad = replace(bad, context=(7, 6))
    with pytest.raises(
        WagleError,
        match=r"^the model runs/a/model gives [a-z-]+ that are not finite for forget\[3\]; its weights",
    ):
        answer_requests(model, [*good, bad], stop_ids=[2])


def test_the_place_of_a_record_makes_no_other_request(tmp_path):
    model = make_model("llama-untied")
    one, other = (Likelihood((5, 6), (8, 9), place=place) for place in ("forget[0]", "retain[4]"))
    assert one == other
    assert len({one, other}) == 1
    cache = AnswerCache(tmp_path, "0" * 64, "float32", "float32", [2])
    answer_requests(model, [one], stop_ids=[2], cache=cache)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))  # nobody is asked again
    assert len(answer_requests(model, [other], stop_ids=[2], cache=cache)) == 1


def test_a_token_that_the_model_rules_out_is_an_error_and_no_infinite_loss(model):
    def rule_out(_, __, logits):
        return logits.index_fill(-1, torch.tensor([7]), float("-inf"))

    model.get_output_embeddings().register_forward_hook(rule_out)
    answers = answer_requests(model, [Likelihood((5, 6), (8, 9))], stop_ids=[2])
    assert answers[Likelihood((5, 6), (8, 9))].token_nll.isfinite().all()
    with pytest.raises(WagleError, match="log-probabilities that are not finite"):
        answer_requests(model, [Likelihood((5, 6), (7, 8))], stop_ids=[2])


def test_no_requests_are_no_answers(model):
    assert answer_requests(model, [], stop_ids=[2]).found == {}


def test_a_wrong_precision_is_an_error(model):
    with pytest.raises(WagleError, match="unknown precision 'float16'; did you mean 'bfloat16'"):
        answer_requests(model, likelihoods(), stop_ids=[2], dtype="float16")


def test_bfloat16_products_still_give_float32_losses():
    model = make_model("llama-tied")
    requests = likelihoods()
    exact = answer_requests(model, requests, stop_ids=[2])
    rough = answer_requests(model, requests, stop_ids=[2], dtype="bfloat16")
    for request in exact.found:  # a bfloat16 has 8 bits: losses near 6 nats differ by hundredths
        torch.testing.assert_close(
            rough[request].token_nll, exact[request].token_nll, rtol=0, atol=0.05
        )
    values = torch.cat([rough[r].token_nll for r in exact.found])
    assert (values != values.bfloat16().double()).float().mean() > 0.9


# ---------------------------------------------------------------------------------------------
# Moments


def test_t27_moments_are_the_mean_and_variance_of_the_log_probability():
    found = moments(torch.tensor([[0.7, 0.2, 0.1]]).log())
    assert found.dtype == torch.float64
    assert found[0].tolist() == pytest.approx([-0.801819, 0.494387], abs=1e-6)


def test_moments_of_certain_and_of_even_distributions_are_finite():
    rows = torch.tensor([[0.0, float("-inf"), float("-inf")], [1e4, 0.0, 0.0], [2.0, 2.0, 2.0]])
    found = moments(rows)
    assert found[:2].abs().max() < 1e-6
    assert found[2].tolist() == pytest.approx([-math.log(3), 0.0], abs=1e-6)


@pytest.mark.parametrize("budget", BUDGETS)
def test_one_request_with_and_without_moments_is_asked_once(model, budget):
    plain = Likelihood((5, 6, 7), (8, 9))
    full = replace(plain, moments=True)
    other = Likelihood((5, 6, 7), (10, 11, 12), moments=True)
    seen = []
    handle = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].numel())
    )
    answers = answer_requests(model, [plain, full, other], stop_ids=[2], batch_tokens=budget)
    handle.remove()
    assert sum(seen) <= 2 + 4 + 4  # the prompt's first two, then both continuations
    assert answers.likelihood(plain).moments is None
    assert answers.likelihood(full).token_nll.equal(answers.likelihood(plain).token_nll)
    with torch.no_grad():
        logits = model(torch.tensor([[5, 6, 7, 10, 11, 12]])).logits[0, 2:5]
    torch.testing.assert_close(
        answers.likelihood(other).moments, moments(logits), rtol=1e-5, atol=1e-5
    )


# ---------------------------------------------------------------------------------------------
# What likelihoods already say of greedy answers


@pytest.mark.parametrize("right", [0, 1, 4, 8])
def test_an_answer_goes_on_where_the_likelihoods_stop_being_right(right):
    model = lively("llama-untied")
    request = Greedy((5, 6, 7), 8)
    said = slow_greedy(model, request, ()).ids
    wrong = tuple((token + 1) % 400 for token in said)
    asked = Likelihood(request.context, said[:right] + wrong[right:] + (9,))
    shorter = Likelihood(request.context, (said[0], wrong[1]))
    seen = []
    handle = model.get_input_embeddings().register_forward_pre_hook(
        lambda _, args: seen.append(args[0].shape[1])
    )
    answers = answer_requests(model, [request, asked, shorter], stop_ids=[])
    handle.remove()
    assert answers.text(request) == slow_greedy(model, request, ())
    # After the prompt and the tree: what is known at once (the first at least, from the shorter
    # one), the rest token by token.
    known = max(right, 1)
    assert seen[2:] == ([known] + [1] * (8 - known) if known < 8 else [])


@pytest.mark.parametrize(("limit", "place"), [(8, 3), (3, 3), (4, 3), (2, 3), (8, 0)])
def test_a_stop_that_the_likelihoods_show_ends_the_answer(limit, place):
    model = lively("llama-untied")
    said = slow_greedy(model, Greedy((5, 6, 7), 8), ()).ids
    stop, request = said[place], Greedy((5, 6, 7), limit)
    asked = Likelihood(request.context, said)
    found = answer_requests(model, [asked, request], stop_ids=[stop]).text(request)
    assert found == slow_greedy(model, request, [stop])


def test_a_likelihood_that_is_scored_in_part_begins_no_answer():
    model = lively("llama-untied")
    request = Greedy((5, 6, 7), 4)
    said = slow_greedy(model, request, ()).ids
    part = Likelihood(request.context, ((said[0] + 1) % 400, *said[1:]), (False, True, True, True))
    answers = answer_requests(model, [part, request], stop_ids=[])
    assert answers.text(request) == slow_greedy(model, request, ())

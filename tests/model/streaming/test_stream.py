"""Live models whose blocks stay on disk: the same numbers, and one reading for all jobs."""

import gc
from functools import partial

import pytest
import torch

from tests.conftest import MORE_FAMILIES, make_model
from wagle.model.loading import load_model
from wagle.model.streaming import traces
from wagle.model.streaming.opening import each, in_step, is_streamed, open_streamed, stream_of
from wagle.model.streaming.stream import Laid
from wagle.model.structure import without_dropout
from wagle.system.errors import WagleError


def batches(count=3, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    sizes = [(2, 5), (1, 9), (3, 4), (1, 3), (2, 2)]
    return [torch.randint(4, 60, sizes[i % 5], generator=drawn) for i in range(count)]


def loss_of(model, ids):
    return model(input_ids=ids, labels=ids, use_cache=False).loss


@pytest.fixture(params=sorted(MORE_FAMILIES))
def pair(request, tmp_path):
    """One model twice: whole, and streamed."""
    make_model(request.param).save_pretrained(tmp_path)
    whole, streamed = load_model(tmp_path), open_streamed(tmp_path)
    with without_dropout(whole), without_dropout(streamed):
        yield whole, streamed
    stream_of(streamed).close()


@pytest.fixture
def llama(tmp_path):
    make_model("llama-untied").save_pretrained(tmp_path)
    return load_model(tmp_path), open_streamed(tmp_path)


def backward(model, ids, slot, times=1):
    loss = loss_of(model, ids) * times
    loss.backward()
    stream = stream_of(model)
    if stream is not None:
        stream.collect(slot)
    return float(loss.detach())


def gradients_of(model):
    """What the way back gives, added up over the slots."""
    found = {}

    def take(name, parameter, _):
        found[name] = found.get(name, 0) + parameter.grad
        parameter.grad = None

    stream_of(model).backward(take)
    outer = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return found | outer


def close(found, expected, size=1e-5):
    assert set(found) == {n for n, _ in expected}
    rounding = 1e-7 * max(other.norm() for _, other in expected)  # a bias of keys has gradient 0
    for name, other in expected:
        assert (found[name] - other).norm() <= size * other.norm() + rounding, name


def test_outputs_are_those_of_the_whole_model(pair):
    whole, streamed = pair
    assert is_streamed(streamed)
    assert not is_streamed(whole)
    for ids in batches():
        with torch.no_grad():
            assert torch.equal(streamed(input_ids=ids).logits, whole(input_ids=ids).logits)


def test_gradients_are_those_of_the_whole_model_and_every_block_is_read_twice(pair):
    whole, streamed = pair
    stream = stream_of(streamed)
    expected = [backward(whole, ids, "") for ids in batches()]
    jobs = [partial(backward, streamed, ids, "total") for ids in batches()]
    assert in_step(streamed, jobs) == pytest.approx(expected, rel=1e-6)
    found = gradients_of(streamed)
    close(found, [(n, p.grad) for n, p in whole.named_parameters() if p.grad is not None])
    assert stream.sweeps == 1
    size = sum(p.numel() for n, p in streamed.named_parameters() if n not in stream.outer)
    last = sum(streamed.get_parameter(n).numel() for n in stream.names[-1])
    assert stream.read == 4 * (2 * size - last)  # the last block is still there on the way back


def test_slots_keep_the_gradients_of_two_losses_apart(llama):
    _, streamed = llama
    one, other = batches(2)
    for ids in (one, other):
        backward(streamed, ids, "a" if ids is one else "b")
    found = {}

    def take(name, parameter, slot):
        found[slot, name] = parameter.grad
        parameter.grad = None

    stream_of(streamed).backward(take)
    streamed.zero_grad()
    for slot, ids in (("a", one), ("b", other)):
        backward(streamed, ids, "x")
        own = gradients_of(streamed)
        streamed.zero_grad()
        for name in stream_of(streamed).names[0]:
            assert torch.equal(found[slot, name], own[name])


def test_one_graph_with_two_backward_passes_gives_both_slots_their_own(llama):
    whole, streamed = llama
    (ids,) = batches(1)
    logits = streamed(input_ids=ids).logits
    logits[..., 0].sum().backward(retain_graph=True)
    stream_of(streamed).collect("a")
    logits[..., 1].sum().backward()
    stream_of(streamed).collect("b")
    found = {"a": {}, "b": {}}

    def take(name, parameter, slot):
        found[slot][name] = parameter.grad
        parameter.grad = None

    stream_of(streamed).backward(take)
    for slot, column in (("a", 0), ("b", 1)):
        whole.zero_grad()
        whole(input_ids=ids).logits[..., column].sum().backward()
        inner = [(n, p.grad) for n, p in whole.named_parameters() if ".layers." in n]
        close(found[slot], inner)


def test_a_loss_on_hidden_states_goes_back_from_where_it_stands(pair):
    whole, streamed = pair
    (ids,) = batches(1)
    for model in pair:
        blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
        seen = []
        handle = blocks[0].register_forward_hook(
            lambda _, __, out, seen=seen: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        logits = model(input_ids=ids, use_cache=False).logits
        handle.remove()
        (seen[0].square().sum() + logits.square().sum()).backward()
    stream_of(streamed).collect("total")
    expected = [(n, p.grad) for n, p in whole.named_parameters() if p.grad is not None]
    close(gradients_of(streamed), expected)


def test_a_change_between_two_blocks_is_part_of_the_way_back(llama):
    whole, streamed = llama
    (ids,) = batches(1)
    for model in llama:
        model.model.layers[0].register_forward_hook(lambda _, __, out: out * 3.0)
        backward(model, ids, "total")
    expected = [(n, p.grad) for n, p in whole.named_parameters() if p.grad is not None]
    close(gradients_of(streamed), expected)


def test_only_what_trains_has_a_gradient_and_lower_blocks_are_not_read_again(llama):
    _, streamed = llama
    stream = stream_of(streamed)
    stream.trained = {stream.names[-1][0]}
    for name in stream.outer:
        streamed.get_parameter(name).requires_grad_(False)
    backward(streamed, batches(1)[0], "total")
    before = stream.read
    assert set(gradients_of(streamed)) == stream.trained
    assert stream.read == before


def test_the_stem_gets_its_gradient_in_its_slot(llama):
    _, streamed = llama
    backward(streamed, batches(1)[0], "wanted")
    entered = []

    class Into:
        def __init__(self, slot):
            self.slot = slot

        def __enter__(self):
            entered.append(self.slot)

        def __exit__(self, *_):
            pass

    stream_of(streamed).backward(lambda _, parameter, __: setattr(parameter, "grad", None), Into)
    assert entered == ["wanted"]


def test_the_overlay_lies_over_what_is_read_and_can_be_taken_away(llama):
    whole, streamed = llama
    (ids,) = batches(1)
    name = stream_of(streamed).names[1][0]
    index = torch.tensor([0, 5, 7], dtype=torch.int32)
    with torch.no_grad():
        plain = streamed(input_ids=ids).logits
        stream_of(streamed).overlay[name] = Laid(index, torch.tensor([1.0, -2.0, 3.0]))
        whole.get_parameter(name).view(-1)[index.long()] = torch.tensor([1.0, -2.0, 3.0])
        assert torch.equal(streamed(input_ids=ids).logits, whole(input_ids=ids).logits)
        stream_of(streamed).overlay.clear()
        assert torch.equal(streamed(input_ids=ids).logits, plain)
        every = torch.zeros_like(whole.get_parameter(name))
        stream_of(streamed).overlay[name] = Laid(None, every.view(-1))
        whole.get_parameter(name).copy_(every)
        assert torch.equal(streamed(input_ids=ids).logits, whole(input_ids=ids).logits)


def test_what_enters_blocks_goes_to_a_file_whose_space_is_used_again(llama, monkeypatch):
    whole, streamed = llama
    way = stream_of(streamed)._way
    monkeypatch.setattr(way._spill, "limit", 0)
    ends = set()
    for _ in range(3):
        for model in llama:
            model.zero_grad()
            backward(model, batches(1)[0], "total")
        expected = [(n, p.grad) for n, p in whole.named_parameters() if p.grad is not None]
        close(gradients_of(streamed), expected)
        gc.collect()
        ends.add(way._spill._end)
        assert len(way._spill) == 0
    assert ends == {0}


def test_a_pass_that_nobody_goes_back_through_leaves_nothing(llama):
    _, streamed = llama
    way = stream_of(streamed)._way
    loss = loss_of(streamed, batches(1)[0])
    assert len(way._spill) > 0
    del loss
    gc.collect()
    assert len(way._spill) == 0


def test_the_first_error_of_a_job_ends_all_of_them(llama):
    _, streamed = llama
    ended = []

    def job(number):
        try:
            loss_of(streamed, batches(1)[0])
            if number == 1:
                raise ValueError("the second")
            loss_of(streamed, batches(1)[0])
        finally:
            ended.append(number)

    with pytest.raises(ValueError, match="the second"):
        each(streamed, job, range(4))
    assert sorted(ended) == [0, 1, 2, 3]
    with torch.no_grad():  # and it works on
        assert len(each(streamed, partial(loss_of, streamed), batches(5))) == 5


def test_an_error_in_a_block_reaches_the_job_that_caused_it(llama):
    _, streamed = llama

    def job(ids):
        try:
            return float(loss_of(streamed, ids).detach())
        except IndexError:
            return None

    found = each(streamed, job, [batches(1)[0], torch.tensor([[10**6]])])
    assert found[0] > 0
    assert found[1] is None


def test_jobs_of_several_passes_join_the_next_sweep_and_keep_the_callers_modes(llama):
    _, streamed = llama
    stream = stream_of(streamed)

    def job(passes):
        for _ in range(passes):
            loss = loss_of(streamed, batches(1)[0])
        return loss.requires_grad, loss.dtype, torch.is_autocast_enabled("cpu")

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = each(streamed, job, [1, 3, 2])
    assert stream.sweeps == 3
    assert {(grad, cast) for grad, _, cast in found} == {(False, True)}
    assert job(1)[0]


def test_more_jobs_than_are_under_way_at_once_all_end(llama, monkeypatch):
    from wagle.model.streaming import in_step as module

    monkeypatch.setattr(module, "MOST", 3)
    whole, streamed = llama
    with torch.no_grad():
        found = each(streamed, partial(loss_of, streamed), batches(8))
        assert found == [loss_of(whole, ids) for ids in batches(8)]
    assert stream_of(streamed).sweeps == 3


def test_blocks_that_get_more_than_hidden_states_from_weights_are_refused(llama):
    _, streamed = llama
    layers = streamed.model.layers

    def more(_, args, kwargs):
        return args, {**kwargs, "extra": args[0] if args else kwargs["hidden_states"]}

    layers[1].register_forward_pre_hook(more, with_kwargs=True)
    with pytest.raises(WagleError, match="depends on weights; use engine: whole"):
        loss_of(streamed, batches(1)[0])


def test_gradients_through_a_cache_that_holds_tokens_are_refused(llama):
    _, streamed = llama
    (ids,) = batches(1)
    with torch.no_grad():
        cache = streamed(input_ids=ids, use_cache=True).past_key_values
    with pytest.raises(WagleError, match="call it without past_key_values"):
        streamed(input_ids=ids, past_key_values=cache)


def test_bfloat16_weights_are_held_as_they_are(tmp_path):
    make_model("llama-untied").to(torch.bfloat16).save_pretrained(tmp_path)
    whole, streamed = load_model(tmp_path, "bfloat16"), open_streamed(tmp_path, "bfloat16")
    (ids,) = batches(1)
    with torch.no_grad():
        assert torch.equal(streamed(input_ids=ids).logits, whole(input_ids=ids).logits)
    wide = open_streamed(tmp_path, "float32")
    with torch.no_grad():
        expected = load_model(tmp_path)(input_ids=ids).logits
        assert torch.equal(wide(input_ids=ids).logits, expected)


def test_an_own_parameter_may_be_changed_and_the_folder_does_not(llama):
    whole, streamed = llama
    name = stream_of(streamed).outer[0]
    parameter = stream_of(streamed).own(name)
    with torch.no_grad():
        parameter[5] += 1
    assert torch.equal(
        load_model(stream_of(streamed).folder).get_parameter(name), whole.get_parameter(name)
    )
    assert not torch.equal(streamed.get_parameter(name), whole.get_parameter(name))


def test_the_limit_of_hidden_states_in_memory_is_modest():
    assert traces._IN_MEMORY <= 64 << 20

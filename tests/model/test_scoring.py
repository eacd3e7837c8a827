import pytest
import torch
import torch.nn.functional as F

from wagle.data.batches import collate
from wagle.data.tokens import Tokens
from wagle.model.loading import load_model
from wagle.model.scoring import _TokenNLL, answer_nll
from wagle.model.structure import place
from wagle.system.errors import WagleError


def test_places_of_parameters():
    assert place("model.layers.3.mlp.up_proj.weight") == ("3", "mlp.up_proj.weight")
    assert place("transformer.h.11.attn.c_attn.bias") == ("11", "attn.c_attn.bias")
    assert place("model.layers.2.mlp.experts.7.w1.weight") == ("2", "mlp.experts.7.w1.weight")
    assert place("lm_head.weight") == ("", "lm_head.weight")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "does not exist"),
        (lambda f: f.mkdir(), "holds no config.json"),
        (lambda f: (f.mkdir(), (f / "config.json").write_text("{}")), "lacks its weight file"),
        (lambda f: (f.mkdir(), (f / "config.json").write_text("{")), "is not valid JSON"),
    ],
)
def test_a_folder_that_is_no_model_is_a_one_line_error(tmp_path, make, message):
    make(tmp_path / "m")
    with pytest.raises(WagleError, match=message) as caught:
        load_model(tmp_path / "m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cross_entropy_of_many_rows_is_the_plain_one(dtype):
    torch.manual_seed(0)
    logits = torch.randn(37, 50).mul(4).to(dtype).requires_grad_()
    target = torch.randint(50, (37,))
    weight = torch.rand(37)
    nll, hit = _TokenNLL.apply(logits, target)
    plain = F.cross_entropy(logits.float(), target, reduction="none")
    torch.testing.assert_close(nll, plain, rtol=1e-5, atol=1e-5)
    assert nll.dtype == torch.float32
    assert torch.equal(hit, logits.float().argmax(-1) == target)
    (ours,) = torch.autograd.grad((nll * weight).sum(), logits)
    (theirs,) = torch.autograd.grad((plain * weight).sum(), logits)
    assert ours.dtype == dtype
    torch.testing.assert_close(
        ours, theirs, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-6
    )


def test_the_cross_entropy_has_a_second_derivative_and_takes_no_rows():
    torch.manual_seed(0)
    logits = torch.randn(5, 7, requires_grad=True)
    target = torch.randint(7, (5,))

    def curvature(nll):
        (first,) = torch.autograd.grad(nll.sum(), logits, create_graph=True)
        return torch.autograd.grad((first**2).sum(), logits)[0]

    plain = F.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(curvature(_TokenNLL.apply(logits, target)[0]), curvature(plain))
    nll, hit = _TokenNLL.apply(logits[:0], target[:0])
    assert nll.shape == hit.shape == (0,)


def records(beginning, answers):
    """Records with a beginning that is not scored, and scored answers."""
    return [Tokens((*beginning, *a), (False,) * len(beginning) + (True,) * len(a)) for a in answers]


ANSWERS = [(9, 20, 31), (9, 20, 32, 77, 5), (9, 60), (14, 3, 3, 8)]


def tokens_run(model, batch):
    """The scores of a batch without gradients, and how many tokens went through the model."""
    counts = []
    embedding = model.get_input_embeddings()
    handle = embedding.register_forward_pre_hook(lambda _, args: counts.append(args[0].numel()))
    with torch.no_grad():
        found = answer_nll(model, batch)
    handle.remove()
    return found, sum(counts)


def test_what_all_records_of_a_batch_begin_with_runs_once(every_model):
    batch = collate(records(range(40, 60), ANSWERS), range(4), multiple=1)
    plain = answer_nll(every_model, batch)  # with gradients: nothing is shared
    shared, count = tokens_run(every_model, batch)
    torch.testing.assert_close(shared.token_nll, plain.token_nll.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shared.nll_mean, plain.nll_mean.detach(), rtol=1e-5, atol=1e-5)
    assert torch.equal(shared.hit, plain.hit)
    sliding = every_model.config.model_type in (
        "gemma2",
        "gemma3_text",
    )  # blocks that forget tokens
    # The last of the 20 predicts an answer's first token, so it stays with the answers.
    assert count == (4 * 25 if sliding else 19 + 4 * 6)


@pytest.mark.parametrize(
    "tokens",
    [
        records(range(40, 47), ANSWERS),  # too short to pay
        records(range(40, 60), ANSWERS[:1]),  # one record shares with none
        records(range(40, 60), ANSWERS)[1:] + records(range(41, 61), ANSWERS[:1]),
        [
            Tokens(t.ids, (False, *(True,) * (len(t.ids) - 1)))
            for t in records(range(40, 60), ANSWERS)
        ],
    ],
)
def test_a_batch_without_a_common_beginning_runs_whole(model, tokens):
    batch = collate(tokens, range(len(tokens)))
    found, count = tokens_run(model, batch)
    assert count == batch["input_ids"].numel()
    torch.testing.assert_close(found.nll_mean, answer_nll(model, batch).nll_mean.detach())

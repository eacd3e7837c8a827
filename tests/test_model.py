import pytest
import torch
import torch.nn.functional as F

from wagle.errors import WagleError
from wagle.model import _TokenNLL, load_model, place


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
        (lambda f: (f.mkdir(), (f / "config.json").write_text("{}")), "cannot load the model in"),
        (lambda f: (f.mkdir(), (f / "config.json").write_text("{")), "cannot load the model in"),
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

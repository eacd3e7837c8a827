import pytest
import torch

from tests.conftest import make_model
from tests.unlearning.conftest import mask_of, slow_gradient, tokens, unlearn, weights
from wagle.data.batches import collate
from wagle.model.scoring import answer_logits
from wagle.unlearning.training.curvature import draw_labels, take_curvature
from wagle.unlearning.training.optimizers import SophiaG
from wagle.unlearning.training.weights.selected import SelectedWeights

KEY = (0, "curvature", 2)


def _micros(sizes, index=tuple(range(8)), name="retain"):
    """The records of a set in micro-batches of these sizes, in this order."""
    every, micros = tokens(name), []
    for size in sizes:
        part, index = list(index[:size]), index[size:]
        micros.append({name: collate([every[i] for i in part], part)})
    return micros


def _labels(micros, logits_of, key=KEY):
    """The drawn labels of every record."""
    found = {}
    for micro in micros:
        one = micro["retain"]
        drawn = draw_labels(logits_of(one), one["scored"], one["index"], key)
        sizes = one["scored"].sum(-1).tolist()
        found.update(zip(one["index"].tolist(), drawn.split(sizes), strict=True))
    return found


def test_over_many_records_the_draws_are_those_of_the_softmax():
    count = 4000
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 0.5]).log_softmax(-1)
    scored = torch.zeros(count, 2, dtype=torch.bool)
    scored[:, 1] = True
    drawn = draw_labels(logits.expand(count, 5), scored, torch.arange(count), KEY)
    got = torch.bincount(drawn, minlength=5) / count
    # Four standard deviations of a share are at most 4 sqrt(1/4 / 4000) = 0.032.
    torch.testing.assert_close(got, logits.exp(), rtol=0, atol=0.032)


def test_the_draws_of_a_record_depend_on_seed_step_and_record_and_not_on_its_batch():
    model = make_model("llama-tied")

    def logits_of(one):
        with torch.no_grad():
            return answer_logits(model, one)[0]

    alone = _labels(_micros([1] * 8), logits_of)
    for sizes, index in (([8], range(8)), ([3, 5], (7, 2, 5, 1, 0, 6, 3, 4))):
        got = _labels(_micros(sizes, tuple(index)), logits_of)
        assert all(torch.equal(got[i], alone[i]) for i in range(8))
    assert not all(torch.equal(alone[i][:3], alone[0][:3]) for i in range(8))
    for key in ((1, "curvature", 2), (0, "curvature", 3)):
        other = _labels(_micros([8]), logits_of, key)
        assert not all(torch.equal(other[i], alone[i]) for i in range(8))


@pytest.mark.parametrize("sizes", [[6], [1, 2, 3]])
def test_the_update_is_the_number_of_records_times_the_squared_gradient_of_their_mean(sizes):
    model = make_model("llama-untied")
    every, losses = tokens("retain"), []
    for i in range(6):  # each record alone and unpadded
        ids = torch.tensor([every[i].ids])
        scored = torch.tensor([every[i].scored])
        log_probs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        before = log_probs[:-1][scored[0, 1:]]
        labels = draw_labels(before, scored, torch.tensor([i]), KEY)
        losses.append(-before.gather(-1, labels.unsqueeze(-1)).mean())
    expected = slow_gradient(torch.stack(losses).mean(), model)
    mask = mask_of(model, 0.5)
    selected = SelectedWeights(model, mask)
    optimizer = SophiaG([m for _, m in selected.named_masters()], betas=(0.9, 0.75))
    take_curvature(model, selected, optimizer, _micros(sizes), "retain", 6, "float32", KEY)
    for name, master in selected.named_masters():
        wanted = 0.25 * 6 * expected[name][mask[name]].square()
        got = optimizer.state[master]["curvature"]
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-12)
    assert all(p.grad is None for p in model.parameters())


def test_a_run_takes_the_curvature_at_its_steps_and_from_the_set_that_is_named(monkeypatch):
    from wagle.unlearning.training import trainer

    taken = []

    def spy(model, selected, optimizer, micros, name, count, dtype, key):
        taken.append((key[2], name, sum(len(m[name]["index"]) for m in micros)))
        take_curvature(model, selected, optimizer, micros, name, count, dtype, key)

    monkeypatch.setattr(trainer, "take_curvature", spy)
    settings = {"optimizer": "SophiaG", "max_steps": 5, "curvature_every": 2, "accumulation": 2}
    unlearn(make_model("llama-tied"), **settings)
    assert taken == [(0, "retain", 4), (2, "retain", 4), (4, "retain", 4)]
    taken.clear()
    unlearn(make_model("llama-tied"), **settings, curvature="forget")
    assert [name for _, name, _ in taken] == ["forget"] * 3
    taken.clear()
    unlearn(make_model("llama-tied"), **settings, objective="grad_ascent", retain=None)
    assert [name for _, name, _ in taken] == ["forget"] * 3


def test_under_sophia_an_entry_moves_by_at_most_the_learning_rate_and_only_if_selected():
    model = make_model("llama-tied")
    mask = mask_of(model, 0.3)
    before = weights(model)
    unlearn(model, mask=mask, optimizer="SophiaG", max_steps=1, learning_rate=1e-3)
    for name, old in before.items():
        moved = (model.get_parameter(name).detach() - old).abs()
        assert moved.max() <= 1e-3 * 1.001
        assert not moved[~mask[name]].any()

import pytest
import torch

import wagle
from tests.conftest import make_model
from wagle.attribution import engines
from wagle.attribution.engines import whole
from wagle.data.batches import collate
from wagle.data.tokens import Encoder
from wagle.errors import WagleError


def _close(one, other):
    """||a-b|| <= 1e-5 ||b|| per tensor; tensors without a gradient against the whole norm."""
    total = torch.sqrt(sum(g.double().norm() ** 2 for g in other.values()))
    for name, b in other.items():
        scale = b.double().norm()
        if scale < 1e-6 * total:
            scale = total
        assert (one[name] - b).double().norm() <= 1e-5 * scale, name


def _by_hand(model, tokens):
    """The mean over records of the mean NLL, one record at a time, through the model's own loss."""
    model.zero_grad()
    for t in tokens:
        labels = [i if s else -100 for i, s in zip(t.ids, t.scored, strict=True)]
        loss = model(input_ids=torch.tensor([t.ids]), labels=torch.tensor([labels])).loss
        (loss / len(tokens)).backward()
    found = {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in model.named_parameters()
    }
    model.zero_grad()
    return found


def test_gradients_are_those_of_the_models_own_loss(any_model, tokenizer, forget):
    tokens = Encoder(tokenizer).encode(wagle.read_records(forget, name="forget"))
    ((_, found),) = whole(any_model, {"forget": tokens}, 512, "float32")
    _close(found, _by_hand(any_model, tokens))


@pytest.mark.parametrize("records_per_batch", [1, 4, 16])
@pytest.mark.parametrize("side", ["left", "right"])
def test_gradients_do_not_depend_on_batch_size_or_padding_side(
    any_model, tokenizer, forget, retain, records_per_batch, side, monkeypatch
):
    tokens = Encoder(tokenizer).encode(wagle.read_records(forget + retain, name="forget"))
    ((_, expected),) = whole(any_model, {"forget": tokens}, 1, "float32")  # one record each

    def batches(all_tokens, batch_tokens):
        del batch_tokens
        places = range(0, len(all_tokens), records_per_batch)
        for i in places:
            part = list(range(i, min(i + records_per_batch, len(all_tokens))))
            yield collate([all_tokens[j] for j in part], part, side=side)

    monkeypatch.setattr(engines, "token_batches", lambda *a: list(batches(*a)))
    ((_, found),) = whole(any_model, {"forget": tokens}, 512, "float32")
    _close(found, expected)


def test_dropout_is_off_and_the_mode_is_restored(tokenizer, forget):
    model = make_model("gpt2").train()  # dropout 0.1
    tokens = Encoder(tokenizer).encode(wagle.read_records(forget, name="forget"))
    first, second = (
        dict(whole(model, {"forget": tokens}, 512, "float32"))["forget"] for _ in range(2)
    )
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert model.training
    assert model.transformer.drop.p == 0.1


def test_a_store_on_disk_holds_the_gradients_of_the_store_in_memory(
    model_folder, tokenizer, forget, retain, tmp_path
):
    memory = wagle.gradients(model_folder, tokenizer, forget, retain)
    disk = wagle.gradients(model_folder, tokenizer, forget, retain, path=tmp_path / "store")
    assert disk.metadata == wagle.GradientStore.open(tmp_path / "store").metadata
    for name in memory.shapes:
        for quantity in ("weight", "grad_forget", "grad_retain"):
            assert torch.equal(memory.get(quantity, name), disk.get(quantity, name))
    assert len(disk.metadata["records"]["retain"]) == len(retain)


def test_a_live_model_leaves_a_copy_of_its_weights(model, tokenizer, forget, retain):
    store = wagle.gradients(model, tokenizer, forget, retain)
    name = next(iter(store.shapes))
    before = store.get("weight", name).clone()
    with torch.no_grad():
        model.get_parameter(name).zero_()
    assert torch.equal(store.get("weight", name), before)


def test_retain_records_are_drawn_without_replacement_at_most_four_per_forget_record(
    model, tokenizer, forget, retain
):
    store = wagle.gradients(model, tokenizer, forget[:1], retain)
    drawn = store.metadata["records"]["retain"]
    assert len(set(drawn)) == len(drawn) == 4
    assert (
        wagle.gradients(model, tokenizer, forget[:1], retain).metadata["records"]["retain"] == drawn
    )
    other = wagle.gradients(model, tokenizer, forget[:1], retain, seed=1)
    assert other.metadata["records"]["retain"] != drawn


def test_pre_tokenised_records_need_no_tokenizer(model):
    rows = [{"input_ids": [5, 6, 7, 8], "labels": [-100, -100, 7, 8]}]
    others = [{"input_ids": [9, 10, 11], "labels": [-100, 10, 11]}]
    store = wagle.gradients(model, None, rows, others)
    assert store.get("grad_forget", "model.norm.weight").norm() > 0


def test_a_changed_model_folder_is_refused_when_scoring(
    model_folder, tokenizer, forget, retain, tmp_path
):
    wagle.gradients(model_folder, tokenizer, forget, retain, path=tmp_path / "store")
    make_model("llama-tied", seed=1).save_pretrained(model_folder)
    store = wagle.GradientStore.open(tmp_path / "store")
    with pytest.raises(WagleError, match="is not the model of this gradient store any more"):
        wagle.Mask.from_scores(store)


def test_shared_records_and_broken_weights_are_one_line_errors(model, tokenizer, forget, retain):
    with pytest.raises(WagleError, match=r"forget\[0\] and retain\[1\] are the same record"):
        wagle.gradients(model, tokenizer, forget, [retain[0], forget[0]])
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(WagleError, match=r"the loss of forget\[\d+\] is not finite"):
        wagle.gradients(model, tokenizer, forget, retain)

import json

import pytest
import torch

import wagle
from tests.conftest import make_model
from wagle.attribution.gradients import collect, passes
from wagle.data.batches import collate
from wagle.data.tokens import Encoder
from wagle.system.errors import WagleError


def close(one, other):
    """||a-b|| <= 1e-5 ||b|| per tensor; tensors without a gradient against the whole norm."""
    total = torch.sqrt(sum(g.double().norm() ** 2 for g in other.values()))
    for name, b in other.items():
        scale = b.double().norm()
        if scale < 1e-6 * total:
            scale = total
        assert (one[name] - b).double().norm() <= 1e-5 * scale, name


def held(store, quantity):
    return {n: store.get(quantity, n) for n in store.shapes if store.has(quantity, n)}


def gradient(model, records):
    """The mean of the gradients of the given tokens, one record at a time, by the model's loss."""
    model.zero_grad()
    for t in records:
        labels = [i if s else -100 for i, s in zip(t.ids, t.scored, strict=True)]
        loss = model(input_ids=torch.tensor([t.ids]), labels=torch.tensor([labels])).loss
        (loss / len(records)).backward()
    found = {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in model.named_parameters()
    }
    model.zero_grad()
    return found


def encode(tokenizer, rows, name="forget"):
    return Encoder(tokenizer).encode(wagle.read_records(rows, name=name))


def test_gradients_are_those_of_the_models_own_loss(every_model, tokenizer, forget, retain):
    store = wagle.gradients(every_model, tokenizer, forget, retain)
    tokens = encode(tokenizer, forget)
    close(held(store, "grad_forget"), gradient(every_model, tokens))


@pytest.mark.parametrize("records_per_batch", [1, 4, 16])
@pytest.mark.parametrize("side", ["left", "right"])
def test_gradients_do_not_depend_on_batch_size_or_padding_side(
    every_model, tokenizer, forget, retain, records_per_batch, side, monkeypatch
):
    rows = forget + retain[:4]
    one_each = wagle.gradients(
        every_model, tokenizer, rows, retain[4:], batch_tokens=1, quantities=["grad_forget"]
    )

    def batches(all_tokens, batch_tokens):
        del batch_tokens
        for i in range(0, len(all_tokens), records_per_batch):
            part = list(range(i, min(i + records_per_batch, len(all_tokens))))
            yield collate([all_tokens[j] for j in part], part, side=side)

    monkeypatch.setattr(passes, "token_batches", lambda *a, **_: list(batches(*a)))
    store = wagle.gradients(every_model, tokenizer, rows, retain[4:], quantities=["grad_forget"])
    close(held(store, "grad_forget"), held(one_each, "grad_forget"))


def test_squares_are_means_over_groups_of_their_squared_gradients(model, tokenizer, forget, retain):
    quantities = ["grad_retain", "square_retain", "fisher_retain"]
    store = wagle.gradients(model, tokenizer, forget, retain[:6], quantities=quantities)
    tokens = encode(tokenizer, retain[:6], "retain")
    alone = [gradient(model, [t]) for t in tokens]
    groups = [gradient(model, tokens[:4]), gradient(model, tokens[4:])]
    for name in store.shapes:
        square = sum(g[name] ** 2 for g in alone) / 6
        fisher = sum(g[name] ** 2 for g in groups) / 2
        torch.testing.assert_close(store.get("square_retain", name), square, rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(store.get("fisher_retain", name), fisher, rtol=1e-4, atol=1e-9)
    close(held(store, "grad_retain"), gradient(model, tokens))
    assert store.quantities == tuple(quantities)


def test_refusal_gradients_are_of_the_refusals_to_the_forget_questions(
    model, tokenizer, forget, retain
):
    store = wagle.gradients(model, tokenizer, forget, retain, quantities=["grad_refusal"])
    refused = [
        {"question": r.prompt, "answer": r.refusal}
        for r in wagle.read_records(forget, name="forget")
    ]
    close(held(store, "grad_refusal"), gradient(model, encode(tokenizer, refused)))
    with pytest.raises(WagleError, match=r"refusals need questions: forget\[0\] is a text"):
        wagle.gradients(model, tokenizer, [{"text": "Oslo"}], retain, quantities=["grad_refusal"])


@pytest.mark.parametrize("family", ["llama-tied", "gpt2"])
def test_layer_inputs_are_summed_over_real_tokens_only(family, tokenizer, forget, retain):
    model = make_model(family)
    store = wagle.gradients(model, tokenizer, forget, retain, quantities=["input_square"])
    seen = {}
    layers = {
        f"{n}.weight": m
        for n, m in model.named_modules()
        if type(m).__name__ in {"Linear", "Conv1D"} and n != "lm_head"
    }
    for name, layer in layers.items():

        def look(_, args, name=name):
            seen[name] = seen.get(name, 0) + (args[0].detach()[0] ** 2).sum(0) / len(forget)

        layer.register_forward_pre_hook(look)
    for t in encode(tokenizer, forget):
        with torch.no_grad():
            model(input_ids=torch.tensor([t.ids]))
    assert set(held(store, "input_square")) == set(layers)
    for name, expected in seen.items():
        found = store.get("input_square", name)
        torch.testing.assert_close(found.reshape(-1), expected, rtol=1e-4, atol=1e-6)
        size = store.size(name)
        wide = store.read("input_square", name, 3, size - 5)
        assert torch.equal(wide, found.expand(store.shapes[name]).reshape(-1)[3 : size - 5])
    assert bool(store.transposed) == (family == "gpt2")


def test_only_what_is_asked_for_is_collected(model, tokenizer, forget, retain):
    store = wagle.gradients(model, tokenizer, forget, retain, quantities=["grad_retain"])
    assert store.quantities == ("grad_retain",)
    assert not store.has("grad_forget", next(iter(store.shapes)))
    nothing = wagle.gradients(model, tokenizer, forget, retain, quantities=[])
    assert nothing.quantities == ()
    with pytest.raises(WagleError, match="unknown quantity 'grad_forgot'; did you mean"):
        wagle.gradients(model, tokenizer, forget, retain, quantities=["grad_forgot"])


def test_dropout_is_off_and_the_mode_is_restored(tokenizer, forget, retain):
    model = make_model("gpt2").train()  # dropout 0.1
    first, second = (
        held(wagle.gradients(model, tokenizer, forget, retain), "grad_forget") for _ in range(2)
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
            part = memory.get(quantity, name).reshape(-1)[2:30]
            assert torch.equal(disk.read(quantity, name, 2, 30), part)
    assert len(disk.metadata["records"]["retain"]) == len(retain)


def test_a_bfloat16_store_is_half_the_size_and_rounded_once(
    model_folder, tokenizer, forget, retain, tmp_path
):
    exact = wagle.gradients(model_folder, tokenizer, forget, retain)
    small = wagle.gradients(
        model_folder, tokenizer, forget, retain, path=tmp_path / "s", store_dtype="bfloat16"
    )
    name = "model.norm.weight"
    expected = exact.get("grad_forget", name).bfloat16()
    assert torch.equal(small.get("grad_forget", name), expected)
    assert torch.equal(small.read("grad_forget", name, 0, 5), expected[:5].float())


def test_a_bfloat16_model_is_summed_in_float32(model_folder, tokenizer, forget, retain):
    wide = wagle.gradients(model_folder, tokenizer, forget, retain)
    narrow = wagle.gradients(
        model_folder, tokenizer, forget, retain, dtype="bfloat16", batch_tokens=1
    )
    assert narrow.metadata["model_dtype"] == "bfloat16"
    for name, expected in held(wide, "grad_forget").items():
        found = narrow.get("grad_forget", name)
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.1 * expected.norm() + 1e-6
    assert any((g.bfloat16() != g).any() for g in held(narrow, "grad_forget").values())


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
    store = wagle.GradientStore.open(tmp_path / "store")
    (model_folder / "model.safetensors").touch()
    store.check_weights()  # the same weights, written again
    make_model("llama-tied", seed=1).save_pretrained(model_folder)
    store = wagle.GradientStore.open(tmp_path / "store")
    with pytest.raises(WagleError, match="is no longer the model of this gradient store"):
        store.check_weights()


def test_a_store_of_another_format_or_with_a_missing_part_is_refused(
    model_folder, tokenizer, forget, retain, tmp_path
):
    path = tmp_path / "store"
    wagle.gradients(model_folder, tokenizer, forget, retain, path=path, engine="stream")
    assert not list(path.glob("resume-*"))
    (path / "grad_retain-00001.safetensors").unlink()
    with pytest.raises(WagleError, match=r"lacks grad_retain for model\.layers\.1"):
        wagle.GradientStore.open(path)
    said = json.loads((path / "store.json").read_text())
    (path / "store.json").write_text(json.dumps({**said, "format": "wagle-gradients/1"}))
    with pytest.raises(WagleError, match="has format wagle-gradients/1, not wagle-gradients/2"):
        wagle.GradientStore.open(path)
    with pytest.raises(WagleError, match="is not a gradient store"):
        wagle.GradientStore.open(tmp_path)


def test_a_finished_store_is_opened_again_and_another_one_is_never_replaced(
    model_folder, tokenizer, forget, retain, tmp_path, monkeypatch
):
    path = tmp_path / "store"
    first = wagle.gradients(model_folder, tokenizer, forget, retain, path=path)
    with monkeypatch.context() as patch:
        patch.setattr(collect, "_on_disk", None)  # would be called to make it again
        again = wagle.gradients(model_folder, tokenizer, forget, retain, path=path)
    assert again.metadata == first.metadata
    with pytest.raises(WagleError, match="store holds a gradient store of other data; remove it"):
        wagle.gradients(model_folder, tokenizer, forget[:3], retain, path=path)
    with pytest.raises(WagleError, match=r"of another seed \(0\)"):
        wagle.gradients(model_folder, tokenizer, forget, retain, path=path, seed=1)
    make_model("llama-tied", seed=1).save_pretrained(model_folder)
    with pytest.raises(WagleError, match="of another model"):
        wagle.gradients(model_folder, tokenizer, forget, retain, path=path)


def test_shared_records_and_broken_weights_are_one_line_errors(model, tokenizer, forget, retain):
    with pytest.raises(WagleError, match=r"forget\[0\] and retain\[1\] are the same record"):
        wagle.gradients(model, tokenizer, forget, [retain[0], forget[0]])
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(WagleError, match=r"the loss of forget\[\d+\] is not finite"):
        wagle.gradients(model, tokenizer, forget, retain)


def test_a_store_is_private_and_does_not_give_its_records_away(
    model_folder, tokenizer, forget, retain, tmp_path
):
    memory = wagle.gradients(model_folder, tokenizer, forget, retain)
    plain = {id for ids in memory.metadata["records"].values() for id in ids}
    found = []
    for name in ("one", "two"):
        path = tmp_path / name
        store = wagle.gradients(model_folder, tokenizer, forget, retain, path=path)
        assert path.stat().st_mode & 0o777 == 0o700
        text = "".join(f.read_text() for f in path.iterdir() if f.suffix != ".safetensors")
        assert not any(id in text for id in plain)
        counts = {name: len(ids) for name, ids in store.metadata["records"].items()}
        assert counts == {name: len(ids) for name, ids in memory.metadata["records"].items()}
        found.append(store.metadata["records"])
        again = wagle.gradients(model_folder, tokenizer, forget, retain, path=path)
        assert again.metadata == store.metadata
    assert found[0] != found[1]  # each has a key of its own


def test_an_old_store_with_plain_names_of_records_is_opened(
    model_folder, tokenizer, forget, retain, tmp_path
):
    path = tmp_path / "store"
    wagle.gradients(model_folder, tokenizer, forget, retain, path=path)
    memory = wagle.gradients(model_folder, tokenizer, forget, retain)
    (path / "salt").unlink()
    said = json.loads((path / "store.json").read_text())
    del said["digest"]
    said["records"] = memory.metadata["records"]
    (path / "store.json").write_text(json.dumps(said))
    again = wagle.gradients(model_folder, tokenizer, forget, retain, path=path)
    assert again.metadata["records"] == memory.metadata["records"]


def test_a_token_without_an_embedding_is_refused_before_any_work(model):
    rows = [{"input_ids": [5, 6, 400, 8], "labels": [-100, -100, 400, 8]}]
    others = [{"input_ids": [9, 10, 11], "labels": [-100, 10, 11]}]
    said = "a record has the token 400, but the model has embeddings for 0 to 399 only"
    with pytest.raises(WagleError, match=said):
        wagle.gradients(model, None, rows, others)
    with pytest.raises(WagleError, match=said):
        wagle.unlearn(model, None, rows, others, mask=None, objective="grad_diff")
    with pytest.raises(WagleError, match=said):
        wagle.evaluate(model, None, forget=rows)

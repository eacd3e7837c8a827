import json
import math
import zlib
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from bench import open_unlearning

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
from wagle.evaluation.benchmarks.tofu.requests import VARIANTS
from wagle.evaluation.benchmarks.tofu.task import tofu
from wagle.evaluation.figures import joined
from wagle.evaluation.judges import embeddings
from wagle.evaluation.judges.classifiers import load_judges
from wagle.evaluation.judges.embeddings import cosine
from wagle.evaluation.membership.sets import told_by_words
from wagle.evaluation.peers.reading import basis
from wagle.evaluation.result import Evaluation
from wagle.metrics.text import token_entropy
from wagle.system.errors import WagleError

WORLD = ("real_authors", "world_facts")
_SIDES = ("said", "expected")


def row(set_, i, *, world=False):
    made = {
        "question": f"What did {set_} author {i} write?",
        "answer": f"Author {i} wrote the novel {set_} Garden.",
        "perturbed_answer": [f"Author {i} wrote {word}." for word in ("Snow", "Harbour", "Bread")],
    }
    if not world:
        made["paraphrased_question"] = f"Name the novel by {set_} author {i}."
        made["paraphrased_answer"] = f"The {set_} Garden is by author {i}."
    return made


def write(folder, *, forget=3, retain=4, world=2, holdout=0, split="forget10"):
    counts = {
        f"{split}_perturbed": ("forget", forget),
        "retain_perturbed": ("retain", retain),
        "real_authors_perturbed": ("real", world),
        "world_facts_perturbed": ("fact", world),
    }
    for name, (set_, count) in counts.items():
        rows = [row(set_, i, world=set_ in ("real", "fact")) for i in range(count)]
        (folder / f"{name}.json").write_text("\n".join(map(json.dumps, rows)))
    if holdout:
        rows = [row("unseen", i) for i in range(holdout)]
        keep = ("question", "answer")
        lines = [json.dumps({k: r[k] for k in keep}) for r in rows]
        (folder / f"{split.replace('forget', 'holdout')}.json").write_text("\n".join(lines))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path)


@pytest.fixture(autouse=True)
def _no_sentence_encoder(monkeypatch):
    """The offline encoder is a real model, so here it is as if it were not installed."""
    monkeypatch.setattr("wagle.evaluation.benchmarks.tofu.task.has_offline", lambda: False)
    monkeypatch.setattr("wagle.evaluation.benchmarks.tofu.task.check_encoder", lambda _: None)


@pytest.fixture(scope="module")
def encoder():
    return Encoder(make_tokenizer(chat=False), template="question_answer")


def drawn(request, salt=0):
    """Answers that depend on the request alone, as a model's do."""
    kind = repr((salt, request)).encode()
    generator = np.random.default_rng(zlib.crc32(kind))
    if isinstance(request, Greedy):
        return TextAnswer(
            tuple(generator.integers(40, 60, 5).tolist()), bool(generator.random() < 0.5)
        )
    count = sum(request.scored) if request.scored else len(request.continuation)
    nll = torch.from_numpy(generator.uniform(0.1, 3, count))
    moments = torch.stack([-nll - 0.5, nll], 1) if request.moments else None
    return LikelihoodAnswer(nll, nll < 1.5, moments)


def fake(task, salt=0):
    return Answers({request: drawn(request, salt) for request in task.requests})


def asked(model, request, stop):
    """One request, one plain forward pass per token."""
    ids = list(request.context)
    if isinstance(request, Greedy):
        said = []
        while len(said) < request.max_new_tokens:
            token = int(model(torch.tensor([ids + said])).logits[0, -1].argmax())
            if token == stop:
                return TextAnswer(tuple(said), True)
            said.append(token)
        return TextAnswer(tuple(said), False)
    whole = torch.tensor([ids + list(request.continuation)])
    logp = model(whole).logits[0, len(ids) - 1 : -1].double().log_softmax(-1)
    target = torch.tensor(request.continuation)
    nll = -logp.gather(-1, target[:, None])[:, 0]
    kept = torch.tensor(request.scored or [True] * len(target))
    return LikelihoodAnswer(nll[kept], (logp.argmax(-1) == target)[kept])


def said(encoder, answers):
    """The same answers, but for texts that are words; how many depends on the request."""
    for request, answer in answers.found.items():
        if isinstance(request, Greedy):
            text = "Author 1 wrote Garden." + " Author sea" * (answer.ids[0] % 3)
            answers.found[request] = TextAnswer(tuple(encoder.tokenizer(text)["input_ids"]), True)
    return answers


def surer(measured):
    """The same figures, but for truth ratios of the sets to keep that lie higher."""
    figures = {name: dict(found) for name, found in measured.figures.items()}
    for name in ("retain", *WORLD):
        ratio = figures[name]["truth_ratio"]
        rows = {place: value + 0.2 for place, value in ratio.per_record.items()}
        figures[name]["truth_ratio"] = replace(ratio, value=ratio.value + 0.2, per_record=rows)
    return replace(measured, figures=figures)


def values(measured):
    return {n: {m: f.value for m, f in found.items()} for n, found in measured.figures.items()}


def mean_nll(encoder, answers, question, answer, **kwargs):
    """M of an answer to a question: the request is made here from the text, by hand."""
    tokenizer = encoder.tokenizer
    head = f"Question: {question}\nAnswer:"
    before = tokenizer(head, add_special_tokens=False)["input_ids"]
    ids = tokenizer(f"{head} {answer}", add_special_tokens=False)["input_ids"]
    assert ids[: len(before)] == before
    ids.append(tokenizer.eos_token_id)
    rest = tuple(ids[len(before) :])
    request = Likelihood(tuple(before), rest, (True,) * len(rest), **kwargs)
    return answers.likelihood(request).mean


# ---------------------------------------------------------------------------------------------
# What is asked


def test_official_asks_all_forget_records_and_300_of_the_retain_records(tmp_path, encoder):
    write(tmp_path, forget=310, retain=310, world=1)
    for settings, forget, retain in (
        ({}, 310, 300),
        ({"variant": "open_unlearning"}, 310, 310),
        ({"strict": True}, 300, 300),
        ({"rows": 5}, 5, 5),
        ({"forget_rows": 7, "retain_rows": "all"}, 7, 310),
    ):
        records = tofu(encoder, data=tmp_path, generate=False, **settings).records
        assert list(records) == ["forget", "retain", *WORLD]
        assert (len(records["forget"]), len(records["retain"])) == (forget, retain)


@pytest.mark.parametrize(("variant", "forget", "world"), [("official", 8, 4), ("published", 9, 4)])
def test_a_record_is_asked_no_more_than_its_figures_need(folder, encoder, variant, forget, world):
    # 3 wrong answers: answer, right, 3 wrong, paraphrased; published also the whole record
    task = tofu(encoder, data=folder, variant=variant)
    likely = {r for r in task.requests if isinstance(r, Likelihood)}
    assert len(likely) == 7 * (forget - 2) + 4 * world
    assert len({r for r in task.requests if isinstance(r, Greedy)}) == 11


def test_the_limits_of_greedy_answers_are_those_of_the_variants(folder, encoder):
    def limits(**settings):
        task = tofu(encoder, data=folder, **settings)
        return [r for r in task.requests if isinstance(r, Greedy)]

    assert {r.max_new_tokens for r in limits()} == {128}
    assert {r.max_new_tokens for r in limits(variant="open_unlearning")} == {200}
    assert {r.max_new_tokens for r in limits(variant="published", max_new_tokens=9)} == {9}
    for settings in ({"variant": "published"}, {"strict": True}):
        assert all(len(r.context) + r.max_new_tokens == 200 for r in limits(**settings))


def test_without_generation_nothing_is_written(folder, encoder):
    task = tofu(encoder, data=folder, generate=False)
    assert all(isinstance(r, Likelihood) for r in task.requests)
    found = values(task.measure(fake(task)))
    assert "rouge_l" not in found["retain"]
    both = found["retain"]["probability"], found["retain"]["truth_ratio"]
    assert found["overall"]["utility_proxy"] == pytest.approx(2 * math.prod(both) / sum(both))


def test_the_published_positions_hold_the_header_and_no_eos(folder, encoder):
    task = tofu(encoder, data=folder, variant="published")
    tokenizer, record = encoder.tokenizer, row("forget", 0)
    text = f"### Question: {record['question']}\n### Answer: {record['answer']}"
    before = tokenizer(f"### Question: {record['question']}\n")["input_ids"]
    ids = tokenizer(text)["input_ids"]
    rest = tuple(ids[len(before) :])
    assert tokenizer.decode(rest).startswith("### Answer: Author")
    assert Likelihood(tuple(before), rest, (True,) * len(rest)) in task.requests
    assert Likelihood((ids[0],), tuple(ids[1:])) in task.requests  # the whole record
    assert not any(
        r.continuation[-1] == tokenizer.eos_token_id
        for r in task.requests
        if isinstance(r, Likelihood)
    )


def test_the_published_llama_template_starts_where_a_prompt_without_bos_would_end(folder):
    llama = Encoder(make_tokenizer(chat=False, bos=True), template="llama2")
    task = tofu(llama, data=folder, variant="published")
    record = row("forget", 0)
    prompt = f"[INST] {record['question']} [\\INST] "
    count = len(llama.tokenizer(prompt, add_special_tokens=False)["input_ids"])
    ids = llama.tokenizer(prompt + record["answer"])["input_ids"]
    wanted = Likelihood(tuple(ids[:count]), tuple(ids[count:]), (True,) * (len(ids) - count))
    assert wanted in task.requests


def test_eos_can_be_left_out(folder, encoder):
    eos = encoder.tokenizer.eos_token_id
    for setting, ends in ((None, True), (False, False)):
        task = tofu(encoder, data=folder, eos=setting, generate=False)
        assert all((r.continuation[-1] == eos) == ends for r in task.requests)


# ---------------------------------------------------------------------------------------------
# What is made of the answers


def test_the_figures_of_a_record_are_those_worked_out_from_its_text(folder, encoder):
    task = tofu(encoder, data=folder, generate=False)
    answers = fake(task)
    found = task.measure(answers).figures

    def m(record, answer, question="question"):
        return mean_nll(encoder, answers, record[question], answer)

    for name, set_ in (("forget", "forget"), ("retain", "retain")):
        record = row(set_, 1)
        place = f"{name}[1]"
        log_ratio = (
            m(record, record["paraphrased_answer"])
            - sum(m(record, wrong) for wrong in record["perturbed_answer"]) / 3
        )
        ratio = math.exp(log_ratio)
        wanted = min(ratio, 1 / ratio) if name == "forget" else max(0, 1 - ratio)
        assert found[name]["probability"].per_record[place] == pytest.approx(
            math.exp(-m(record, record["answer"]))
        )
        assert found[name]["log_truth_ratio"].per_record[place] == pytest.approx(log_ratio)
        assert found[name]["truth_ratio"].per_record[place] == pytest.approx(wanted)
        assert found[name]["know"].per_record[place] == pytest.approx(1 / (1 + ratio))
        assert found[name]["paraphrased"].per_record[place] == pytest.approx(
            math.exp(-m(record, record["answer"], "paraphrased_question"))
        )
        assert found[name]["paraphrased_answer"].per_record[place] == pytest.approx(
            math.exp(-m(record, record["paraphrased_answer"]))
        )
    record = row("fact", 0, world=True)
    right, wrong = m(record, record["answer"]), [m(record, w) for w in record["perturbed_answer"]]
    assert found["world_facts"]["probability"].per_record["world_facts[0]"] == pytest.approx(
        math.exp(-right) / (math.exp(-right) + sum(math.exp(-w) for w in wrong))
    )
    assert found["world_facts"]["log_truth_ratio"].per_record["world_facts[0]"] == pytest.approx(
        right - sum(wrong) / 3
    )
    assert "paraphrased" not in found["world_facts"]


def test_variants_differ_in_the_mean_over_wrong_answers_and_the_floor(folder, encoder):
    def task(variant):
        return tofu(encoder, data=folder, variant=variant, generate=False)

    made = {v: task(v) for v in ("official", "paper", "open_unlearning")}
    answers = fake(made["official"])
    nothing = Answers({r: replace(a, hit=a.hit & False) for r, a in answers.found.items()})
    got = {v: values(t.measure(nothing)) for v, t in made.items()}
    assert got["paper"]["forget"]["log_truth_ratio"] > got["official"]["forget"]["log_truth_ratio"]
    assert (
        got["open_unlearning"]["forget"]["log_truth_ratio"]
        == got["official"]["forget"]["log_truth_ratio"]
    )
    for name in ("forget", "world_facts"):  # nothing is reproduced, however short an answer is
        assert {v: got[v][name]["extraction_strength"] for v in got} == dict.fromkeys(got, 0.0)
        assert got["open_unlearning"][name]["extraction_strength_floor"] > 0.0
        assert "extraction_strength_floor" not in got["official"][name]
    named = {v: t.measure(nothing).summary for v, t in made.items()}
    floored = got["open_unlearning"]["forget"]["extraction_strength_floor"]
    assert named["open_unlearning"]["extraction_strength"] == floored
    assert "extraction_strength" not in named["official"]  # which is not the same figure
    assert "forget_truth_ratio" in named["official"]
    assert not [name for name in named["paper"] if "truth_ratio" in name.lower()]
    assert ("forget", "extraction_strength_floor") in made["open_unlearning"].probes


def test_published_averages_the_ratio_after_paraphrased_questions(folder, encoder):
    plain = Encoder(encoder.tokenizer, template="plain")
    task = tofu(plain, data=folder, variant="published")
    answers = fake(task)
    measured = task.measure(answers)
    found, record = measured.figures, row("forget", 2)

    def m(question, answer):
        before = plain.tokenizer(f"### Question: {question}\n")["input_ids"]
        ids = plain.tokenizer(f"### Question: {question}\n### Answer: {answer}")["input_ids"]
        rest = tuple(ids[len(before) :])
        return answers.likelihood(Likelihood(tuple(before), rest, (True,) * len(rest))).mean

    wrong = [m(record["paraphrased_question"], w) for w in record["perturbed_answer"]]
    right = m(record["paraphrased_question"], record["paraphrased_answer"])
    ratio = sum(math.exp(-w) for w in wrong) / 3 / math.exp(-right)
    assert found["forget"]["truth_ratio"].per_record["forget[2]"] == pytest.approx(ratio)
    fact = row("fact", 1, world=True)
    assert found["world_facts"]["probability"].per_record["world_facts[1]"] == pytest.approx(
        math.exp(-m(fact["question"], fact["answer"]))  # options do not count
    )
    assert "model_utility" not in found["overall"]
    assert measured.summary["Forget Quality"] == found["overall"]["forget_retain_ks"].value
    assert measured.summary["forget"]["truth_ratio"] == found["forget"]["truth_ratio"].value
    assert "UE" not in measured.summary  # which needs a sentence encoder
    for name, metric in (
        ("forget", "embedding_accuracy"),
        ("retain", "embedding_accuracy"),
        ("overall", "unlearning_average"),
        ("overall", "utility_average"),
    ):
        figure = found[name][metric]
        assert (figure.value, figure.interval) == (None, None)
        assert figure.note.startswith("needs a sentence encoder: pip install 'wagle[encoder]'")


def test_the_published_auc_says_how_often_forget_records_are_the_less_likely(folder, encoder):
    task = tofu(encoder, data=folder, variant="published")
    answers = fake(task)
    for request, answer in answers.found.items():
        if isinstance(request, Likelihood) and len(request.context) == 1:
            gone = "forget" in encoder.tokenizer.decode(request.continuation)
            nll = torch.full_like(answer.token_nll, 3.0 if gone else 0.5)
            answers.found[request] = LikelihoodAnswer(nll, answer.hit)
    found = task.measure(answers)
    assert found.figures["overall"]["forget_retain_auc_50"].value == 1.0
    assert found.summary["MIA"]["Min_50.0% Prob"] == 1.0


def test_model_utility_is_the_harmonic_mean_of_the_nine(folder, encoder):
    task = tofu(encoder, data=folder)
    answers = fake(task)
    for request in answers.found:
        if isinstance(request, Greedy):
            text = encoder.tokenizer("Author 1 wrote Garden.")["input_ids"]
            answers.found[request] = TextAnswer(tuple(text), True)
    measured = task.measure(answers)
    got = values(measured)
    nine = [
        got[name][metric]
        for name in ("retain", *WORLD)
        for metric in ("probability", "rouge_l", "truth_ratio")
    ]
    utility = measured.figures["overall"]["model_utility"]
    assert utility.value == pytest.approx(9 / sum(1 / v for v in nine))
    assert utility.interval[0] <= utility.value <= utility.interval[1]
    assert measured.summary["model_utility"] == utility.value
    assert measured.summary["wf_Q_A_Prob_normalised"] == got["world_facts"]["probability"]


def test_written_answers_are_scored_against_the_raw_answer(folder, encoder):
    task = tofu(encoder, data=folder)
    answers = fake(task)
    said = f" {row('fact', 0, world=True)['answer'].upper()} "
    text = tuple(encoder.tokenizer(said)["input_ids"])
    greedy = [r for r in task.requests if isinstance(r, Greedy)]
    for request in greedy:
        answers.found[request] = TextAnswer((), False)
    asked_of = {r: encoder.tokenizer.decode(r.context) for r in greedy}
    fact = next(r for r, context in asked_of.items() if "fact author 0" in context)
    answers.found[fact] = TextAnswer(text, True)
    measured = task.measure(answers)
    figures = measured.figures["world_facts"]
    assert dict(figures["rouge_l"].per_record) == {"world_facts[0]": 1.0, "world_facts[1]": 0.0}
    assert figures["contains_answer"].value == 0.5
    assert figures["empty"].value == figures["truncated"].value == 0.5
    assert measured.texts["world_facts"][0].said == said.strip()


def test_the_embedding_accuracy_is_of_answers_to_paraphrased_questions(
    folder, encoder, monkeypatch
):
    def embed(texts, encoder=None):
        assert encoder == "some/encoder"
        return np.stack([[len(t) % 7 + 1, t.count("a") + 1] for t in texts]).astype(np.float32)

    monkeypatch.setattr(embeddings, "embed", embed)
    task = tofu(encoder, data=folder, variant="published", sentence_encoder="some/encoder")
    contexts = [encoder.tokenizer.decode(r.context) for r in task.requests if isinstance(r, Greedy)]
    assert sum("Name the novel by" in c for c in contexts) == 7
    measured = task.measure(fake(task))
    figure = measured.figures["forget"]["embedding_accuracy"]
    assert figure.note == "encoder some/encoder"
    got = values(measured)
    quality, mia = (got["overall"][n] for n in ("forget_retain_ks", "forget_retain_auc_50"))
    wanted = (quality + mia + 1 - figure.value + 1 - got["forget"]["rouge_l"]) / 4
    assert measured.summary["UE"] == pytest.approx(wanted)
    assert 0 <= measured.summary["UT"] <= 1


def test_the_published_variant_takes_the_offline_encoder_where_it_is_installed(
    folder, encoder, monkeypatch
):
    monkeypatch.setattr("wagle.evaluation.benchmarks.tofu.task.has_offline", lambda: True)

    def embed(texts, encoder=None):
        assert encoder == "all-MiniLM-L6-v2"
        return np.ones((len(texts), 2), np.float32)

    monkeypatch.setattr(embeddings, "embed", embed)
    task = tofu(encoder, data=folder, variant="published")
    found = task.measure(fake(task)).figures
    assert found["forget"]["embedding_accuracy"].note == "encoder all-MiniLM-L6-v2"
    assert found["overall"]["utility_average"].value is not None
    assert task.settings["sentence_encoder"] == "all-MiniLM-L6-v2"
    other = tofu(encoder, data=folder, variant="published", generate=False)
    note = other.measure(fake(other)).figures["overall"]["unlearning_average"].note
    assert note == "needs greedy answers: leave generate on"
    assert tofu(encoder, data=folder).settings["sentence_encoder"] is None


def test_classifiers_and_an_encoder_take_a_closer_look(folder, tmp_path, encoder, monkeypatch):
    def embed(texts, encoder=None):
        assert encoder == "some/encoder"
        return np.stack([[len(t) % 7 + 1, t.count("a") - 4] for t in texts]).astype(np.float32)

    monkeypatch.setattr(embeddings, "embed", embed)
    judge = save_tiny(tmp_path / "tiny", ["clean", "entailment"], seed=8)
    task = tofu(
        encoder,
        data=folder,
        sentence_encoder="some/encoder",
        fluency=judge,
        entailment=judge,
        closer_look=True,
    )
    judged = [task.settings[name] for name in ("fluency", "entailment", "closer_look")]
    assert judged == ["tiny", "tiny", "some/encoder"]
    answers = fake(task)
    for request in answers.found:
        if isinstance(request, Greedy):
            text = "Author wrote Garden." + " Author" * (len(request.context) % 3)
            answers.found[request] = TextAnswer(tuple(encoder.tokenizer(text)["input_ids"]), True)
    measured = task.measure(answers)
    found, got = measured.figures, values(measured)
    judges = load_judges(judge, judge)
    for name in ("forget", "retain", *WORLD):
        texts = measured.texts[name]
        rows = judges.rows(texts, forget=name == "forget")
        assert dict(found[name]["fluency"].per_record) == rows["fluency"]
        assert dict(found[name]["entailment"].per_record) == rows["entailment"]
        vectors = {s: embed([getattr(t, s) for t in texts], "some/encoder") for s in _SIDES}
        rows = cosine(vectors["said"], vectors["expected"])
        assert list(found[name]["cosine"].per_record.values()) == pytest.approx(rows.clip(0))
        assert found[name]["token_entropy"].value == pytest.approx(
            sum(token_entropy(t.said) for t in texts) / len(texts)
        )
    assert (
        found["forget"]["fluency"].note == found["retain"]["entailment"].note == "classifier tiny"
    )
    assert found["forget"]["cosine"].note == "encoder some/encoder"
    assert measured.summary["forget_Q_A_gibberish"] == got["forget"]["fluency"]
    five = [got["forget"][m] for m in ("probability", "rouge_l", "cosine", "entailment")]
    efficacy = 1 - (sum(five) + 1 - got["forget"]["truth_ratio"]) / 5
    assert got["overall"]["closer_look_efficacy"] == pytest.approx(efficacy)
    six = ("probability", "rouge_l", "truth_ratio", "token_entropy", "cosine", "entailment")
    kept = [got[name][m] for name in ("retain", *WORLD) for m in six]

    def mean(members):
        return 0 if 0 in members else len(members) / sum(1 / m for m in members)

    assert got["overall"]["closer_look_utility_retain"] == pytest.approx(mean(kept[:6]))
    assert got["overall"]["closer_look_utility"] == pytest.approx(mean(kept))
    assert 0 not in kept[:6]  # so the check above is one
    plain = tofu(encoder, data=folder)
    assert "cosine" not in plain.measure(fake(plain)).figures["forget"]
    assert plain.settings["fluency"] is plain.settings["closer_look"] is None


def test_the_utility_score_is_of_what_is_left_of_the_model_before(tmp_path, encoder):
    judge = save_tiny(tmp_path / "tiny", ["clean", "noise"])
    data = write(tmp_path, forget=8, retain=8, world=8, holdout=8)
    task = tofu(encoder, data=data, fluency=judge)
    own, before = (task.measure(said(encoder, fake(task, salt))) for salt in (0, 2))
    one, other = values(own), values(before)
    shares = [
        min(1, a / b)
        for a, b in (
            (one["overall"]["model_utility"], other["overall"]["model_utility"]),
            (one["forget"]["fluency"], other["forget"]["fluency"]),
        )
    ]
    utility = task.since(own, before).figures["overall"]
    assert list(utility) == ["utility_score"]  # without a reference there is no privacy
    score = utility["utility_score"]
    assert score.value == pytest.approx(2 / sum(1 / share for share in shares))
    assert score.interval is None  # some draws have no wrong answer that is the less likely
    assert score.interval_method == "none: not defined in some draws"
    known = surer(before)
    score = task.since(own, known).figures["overall"]["utility_score"]
    assert 0 <= score.interval[0] <= score.value <= score.interval[1]
    same = task.since(known, known).figures["overall"]["utility_score"]
    assert (same.value, same.interval) == (1, (1, 1))
    both = joined(own, task.against(own, before))
    overall = task.since(both, known).figures["overall"]["overall_score"]
    three = [
        score.value,
        *(both.figures["overall"][n].value for n in ("memorization", "privacy_score")),
    ]
    assert overall.value == pytest.approx(3 / sum(1 / value for value in three))
    assert overall.note == "of memorization, privacy_score, utility_score"
    plain = tofu(encoder, data=data)
    lacking = plain.measure(said(encoder, fake(plain)))
    assert task.since(own, lacking).figures["overall"]["utility_score"].value is None
    assert plain.since(lacking, before).figures == {}


def test_intervals_over_authors_draw_whole_authors(tmp_path, encoder):
    write(tmp_path, forget=40, retain=2)
    answers = fake(tofu(encoder, data=tmp_path, generate=False))
    figure = {
        cluster: tofu(encoder, data=tmp_path, generate=False, cluster=cluster)
        .measure(answers)
        .figures["forget"]["probability"]
        for cluster in ("record", "author")
    }
    assert figure["author"].value == figure["record"].value
    rows = list(figure["author"].per_record.values())
    assert figure["author"].interval == pytest.approx(
        sorted((sum(rows[:20]) / 20, sum(rows[20:]) / 20))
    )
    assert "author" in figure["author"].interval_method


def test_a_number_that_is_none_is_an_error_that_names_the_record(folder, encoder):
    task = tofu(encoder, data=folder, generate=False)
    answers = fake(task)
    last = task.requests[-1]
    answers.found[last] = replace(answers.likelihood(last), token_nll=torch.tensor([math.nan]))
    with pytest.raises(WagleError, match=r"world_facts\[1\]: .* is nan"):
        task.measure(answers)


def test_a_model_is_measured_as_by_one_plain_pass_per_record(tmp_path):
    encoder = Encoder(make_tokenizer())
    task = tofu(encoder, data=write(tmp_path, forget=1, retain=1, world=1), max_new_tokens=4)
    model, stop = make_model("llama-tied"), encoder.tokenizer.eos_token_id
    with torch.no_grad():
        answers = Answers({r: asked(model, r, stop) for r in set(task.requests)})
    found = task.measure(answers).figures
    record = row("forget", 0)
    chat = [
        {"role": "user", "content": record["question"]},
        {"role": "assistant", "content": record["answer"]},
    ]
    text = encoder.tokenizer.apply_chat_template(chat, tokenize=False).removesuffix("\n")
    ids = encoder.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    start = len(
        encoder.tokenizer.apply_chat_template(
            chat[:1], add_generation_prompt=True, tokenize=True, return_dict=False
        )
    )
    labels = torch.where(torch.arange(ids.shape[1]) >= start, ids, -100)
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=labels).loss)
    assert found["forget"]["nll"].value == pytest.approx(loss, rel=1e-5)


# ---------------------------------------------------------------------------------------------
# Beside a reference


def test_a_model_against_its_own_result_has_forget_quality_1_and_no_leakage(tmp_path, encoder):
    task = tofu(encoder, data=write(tmp_path, forget=8, holdout=8), generate=False)
    measured = task.measure(fake(task))
    assert set(measured.figures["holdout"]) >= {"mia_loss", "mia_zlib", "mia_min_k", "mia_min_k++"}
    read = Evaluation.from_json(json.loads(json.dumps(Evaluation(measured.figures).to_json())))
    found = task.against(measured, read.measured())
    overall = found.figures["overall"]
    assert overall["forget_quality"].value == 1.0
    assert overall["forget_quality_distance"].value == overall["forget_quality_shift"].value == 0.0
    assert overall["privleak"].value == overall["privleak_loss"].value == 0.0
    assert overall["privacy"].value == overall["privacy_score"].value == 1.0
    assert found.summary == {"forget_quality": 1.0, "privleak": 0.0}
    assert ("forget", "probability") in task.probes
    assert task.probes[-1] == ("overall", "privleak")


def test_the_privacy_score_has_an_interval_over_draws_of_the_same_texts(tmp_path, encoder):
    task = tofu(encoder, data=write(tmp_path, forget=12, holdout=12), generate=False)
    own, other = (task.measure(fake(task, salt)) for salt in (0, 1))
    score = task.against(own, other).figures["overall"]["privacy_score"]
    assert score.interval[0] < score.value < score.interval[1]
    assert score.interval_method == "bootstrap 95 %, 2000 replicates"
    same = task.against(own, own).figures["overall"]["privacy_score"]
    assert same.interval == (1, 1)


def test_a_reference_that_cannot_be_used_is_found_out_before_anything_is_asked(tmp_path, encoder):
    task = tofu(encoder, data=write(tmp_path, forget=3, holdout=3), generate=False)
    measured = task.measure(fake(task))
    task.fits(measured)
    less = tofu(encoder, data=tmp_path, generate=False, rows=2)
    with pytest.raises(WagleError, match=r"other records or formulas: 2 records .* model's 3"):
        task.fits(less.measure(fake(less)))
    with pytest.raises(WagleError, match=r"no forget\.log_truth_ratio"):
        task.fits(replace(measured, figures={}))
    holdout = {k: v for k, v in measured.figures["holdout"].items() if k != "mia_zlib"}
    lacking = replace(measured, figures={**measured.figures, "holdout": holdout})
    with pytest.raises(WagleError, match=r"the reference has no holdout\.mia_zlib"):
        task.fits(lacking)
    with pytest.raises(WagleError, match=r"the model before has no holdout\.mia_zlib"):
        task.fits(lacking, "before")
    with pytest.raises(WagleError, match="the model before has other records or formulas"):
        task.fits(less.measure(fake(less)), "before")


def test_a_reference_without_membership_scores_still_gives_forget_quality(tmp_path, encoder):
    task = tofu(encoder, data=write(tmp_path, holdout=3), generate=False)
    measured = task.measure(fake(task))
    plain = replace(measured, figures={"forget": measured.figures["forget"]})
    found = task.against(measured, plain)
    assert found.figures["overall"]["privleak"].value is None
    assert "no membership scores" in found.figures["overall"]["privleak"].note
    assert found.summary == {"forget_quality": 1.0}


def test_membership_looks_at_answers_without_their_eos(tmp_path, encoder):
    task = tofu(encoder, data=write(tmp_path, forget=2, holdout=2), generate=False)
    answers = fake(task)
    record = row("forget", 0)
    with_eos = mean_nll(encoder, answers, record["question"], record["answer"])
    measured = task.measure(answers).figures
    found = measured["forget"]
    assert found["nll"].per_record["forget[0]"] == pytest.approx(with_eos)
    request = next(r for r in task.requests if r.moments)
    without = float(answers.likelihood(request).token_nll[:-1].mean())
    assert found["mia_loss"].per_record["forget[0]"] == pytest.approx(without)
    note = measured["overall"]["auc_loss"].note
    assert note.startswith("answers are scored without their EOS")


def test_open_unlearnings_loss_and_zlib_count_the_eos_and_its_min_k_does_not(tmp_path, encoder):
    write(tmp_path, forget=2, holdout=2)
    tasks = {
        variant: tofu(encoder, data=tmp_path, variant=variant, generate=False, rows=2)
        for variant in ("official", "open_unlearning")
    }
    answers = fake(tasks["official"])
    found = {variant: task.measure(answers) for variant, task in tasks.items()}
    peer, own = (found[v].figures["forget"] for v in ("open_unlearning", "official"))
    record = row("forget", 0)
    request = next(r for r in tasks["official"].requests if r.moments)
    with_eos = float(answers.likelihood(request).token_nll.mean())
    ids = [i for i, on in zip(request.continuation, request.scored, strict=True) if on]
    size = len(zlib.compress(encoder.tokenizer.decode(ids, skip_special_tokens=True).encode()))
    assert abs(size - len(zlib.compress(record["answer"].encode()))) <= 1  # a leading blank
    assert peer["mia_loss"].per_record["forget[0]"] == pytest.approx(with_eos)
    assert peer["mia_zlib"].per_record["forget[0]"] == pytest.approx(with_eos / size)
    assert own["mia_loss"].per_record["forget[0]"] != pytest.approx(with_eos)
    assert peer["mia_min_k"].per_record == own["mia_min_k"].per_record
    note = found["open_unlearning"].figures["overall"]["auc_loss"].note
    assert note.startswith("as in OpenUnlearning, loss and zlib count an answer's EOS")
    overall = found["open_unlearning"].figures["overall"]
    assert found["open_unlearning"].summary["mia_loss"] == overall["auc_loss"].value
    assert "mia_min_k" in found["official"].summary
    assert not {"mia_loss", "mia_zlib"} & found["official"].summary.keys()
    assert [t.settings["membership_eos"] for t in tasks.values()] == [False, True]


def test_the_four_attacks_of_open_unlearning_are_made_unless_others_are_named(tmp_path, encoder):
    write(tmp_path, holdout=3)
    common = {"data": tmp_path, "generate": False}
    own = tofu(encoder, **common)
    found = own.measure(fake(own)).figures["holdout"]
    assert {*found} == {"zlib_bytes", "mia_loss", "mia_zlib", "mia_min_k", "mia_min_k++"}
    assert own.settings["k"] == 0.4
    task = tofu(encoder, **common, attacks=["min_k", "lower", "gradnorm"], k=[0.2, 0.5])
    assert task.settings["k"] == 0.2
    assert task.probes[-1] == ("overall", "privleak")
    text = encoder.tokenizer.decode
    lowered = [r for r in task.requests if text(r.continuation).startswith(" author 0 wrote")]
    assert {text(r.context).startswith("Question: What did") for r in lowered} == {True}
    assert not any(r.continuation[-1] == encoder.tokenizer.eos_token_id for r in lowered)
    other = tofu(encoder, **common, attacks=["loss"])
    assert other.settings["k"] is None
    assert ("overall", "privleak") not in other.probes


def test_the_gradient_norm_is_that_of_the_variant(tmp_path, encoder):
    write(tmp_path, holdout=2)
    model = make_model("llama-tied")
    found = {}
    for variant in ("official", "open_unlearning"):
        task = tofu(
            encoder, data=tmp_path, variant=variant, generate=False, attacks=["gradnorm"], rows=2
        )
        answers = answer_requests(model, task.requests, stop_ids=[0])
        found[variant] = task.measure(answers).figures["holdout"]["mia_gradnorm"].value
        request = next(r for r in task.requests if isinstance(r, GradientNorm))
        assert request.continuation[-1] != encoder.tokenizer.eos_token_id
    assert found["open_unlearning"] < found["official"]  # a mean over tensors


def test_without_all_four_attacks_there_is_leakage_but_no_privacy_score(tmp_path, encoder):
    task = tofu(encoder, data=write(tmp_path, holdout=3), generate=False, attacks=["loss", "min_k"])
    own, other = (task.measure(fake(task, salt)) for salt in (0, 1))
    overall = task.against(own, other).figures["overall"]
    assert {"privleak", "privleak_loss", "auc_reference"} <= overall.keys()
    assert "privacy_score" not in overall


def test_a_model_before_unlearning_may_know_the_forget_set(tmp_path, encoder):
    task = tofu(encoder, data=write(tmp_path, holdout=3), generate=False)
    measured = task.measure(fake(task))
    known = {
        name: {**measured.figures[name], "mia_min_k": scores(measured, name, "mia_min_k", value)}
        for name, value in (("forget", 0.0), ("holdout", 1.0))
    }
    before = replace(measured, figures={**measured.figures, **known})
    task.fits(before, "before")
    with pytest.raises(WagleError, match="knows the forget set"):
        task.fits(before)


def scores(measured, name, metric, value):
    """The same figure with one score for all records."""
    figure = measured.figures[name][metric]
    return replace(figure, per_record=dict.fromkeys(figure.per_record, value))


def test_words_that_tell_the_sets_apart_are_noted(tmp_path, encoder, caplog):
    told_by_words.cache_clear()  # said once in a process
    write(tmp_path, forget=12, holdout=12)
    task = tofu(encoder, data=tmp_path, generate=False)
    assert "words alone tell the forget texts" in caplog.text
    note = task.measure(fake(task)).figures["overall"]["auc_zlib"].note
    assert note.startswith("answers are scored without their EOS; words alone tell")


def test_models_that_do_not_overlap_reach_the_floor_and_the_shift_has_a_sign(folder, encoder):
    task = tofu(encoder, data=folder, generate=False)
    measured = task.measure(fake(task))
    ratio = measured.figures["forget"]["log_truth_ratio"]
    higher = replace(ratio, per_record={p: v + 100 for p, v in ratio.per_record.items()})
    other = replace(measured, figures={"forget": {"log_truth_ratio": higher}})
    found = task.against(measured, other).figures["overall"]
    assert found["forget_quality"].value == pytest.approx(2 / math.comb(6, 3))
    assert "floor for 3 and 3" in found["forget_quality"].note
    assert found["forget_quality_shift"].value == pytest.approx(-100)
    assert "privleak" not in found


def test_a_reference_of_another_split_rows_variant_or_template_is_refused(tmp_path, encoder):
    write(tmp_path)
    write(tmp_path, split="forget05")
    plain = Encoder(encoder.tokenizer, template="plain")
    task = tofu(encoder, data=tmp_path, generate=False)
    measured = task.measure(fake(task))
    for own, settings in (
        (encoder, {"split": "forget05"}),
        (encoder, {"forget_rows": 2}),
        (encoder, {"variant": "paper"}),
        (plain, {}),
    ):
        other = tofu(own, data=tmp_path, generate=False, **settings)
        with pytest.raises(WagleError, match="other records or formulas"):
            task.against(measured, other.measure(fake(other)))
    same = tofu(encoder, data=tmp_path, variant="open_unlearning")  # the same ratios
    assert task.against(measured, same.measure(fake(same))).figures["overall"]
    with pytest.raises(WagleError, match=r"no forget\.log_truth_ratio"):
        task.against(measured, replace(measured, figures={}))


def test_a_reference_from_another_tool_need_not_tell_its_template(folder, encoder):
    task = tofu(encoder, data=folder, generate=False)
    measured = task.measure(fake(task))
    ratio = measured.figures["forget"]["log_truth_ratio"]
    for split, works in (("forget10", True), ("forget05", False)):
        other = replace(ratio, note=basis(split, "geometric", "question"))
        reference = replace(measured, figures={"forget": {"log_truth_ratio": other}})
        if works:
            assert task.against(measured, reference).figures["overall"]["forget_quality"].value == 1
        else:
            with pytest.raises(WagleError, match=r"3 records \(forget05"):
                task.against(measured, reference)


# ---------------------------------------------------------------------------------------------
# What does not fit


def test_missing_files_are_named(tmp_path, encoder):
    write(tmp_path)
    (tmp_path / "retain_perturbed.json").unlink()
    with pytest.raises(WagleError, match=r"lacks retain_perturbed .*locuslab/TOFU"):
        tofu(encoder, data=tmp_path)
    with pytest.raises(WagleError, match="lacks forget01_perturbed, retain_perturbed"):
        tofu(encoder, data=tmp_path, split="forget01")


def test_a_folder_that_is_not_there_is_named(tmp_path, encoder):
    with pytest.raises(
        WagleError, match=r"nothing is not a folder; .* the files of TOFU.*locuslab"
    ):
        tofu(encoder, data=tmp_path / "nothing")
    with pytest.raises(
        WagleError,
        match=r"data/tofu is not a local folder, and .* forget10_perturbed \(train\) cannot be read: ",
    ):
        tofu(encoder, data="data/tofu")


def test_a_revision_is_handed_to_the_hub_and_the_commit_that_was_read_is_told(encoder, monkeypatch):
    asked = []

    class Rows(list):
        info = datasets.DatasetInfo(
            download_checksums={f"hf://datasets/locuslab/TOFU@{'ab' * 20}/x.json": {}}
        )

    def load(name, config, split, revision):
        asked.append((name, config, split, revision))
        set_ = config.split("_")[0]
        return Rows([row(set_, 0, world=config.startswith(("real", "world")))])

    monkeypatch.setattr("datasets.load_dataset", load)
    task = tofu(encoder, data="locuslab/TOFU", revision="v1", generate=False)
    assert asked[0] == ("locuslab/TOFU", "forget10_perturbed", "train", "v1")
    assert len(asked) == 5
    assert task.data["revision"] == "ab" * 20
    assert asked[-1] == ("locuslab/TOFU", "holdout10", "train", "v1")
    assert set(task.records) == {"forget", "retain", *WORLD, "holdout"}
    assert "auc_min_k" in task.measure(fake(task)).figures["overall"]


def test_a_hub_without_the_holdout_split_is_told_in_place_of_the_leakage(
    encoder, monkeypatch, caplog
):
    def load(_name, config, **_):
        if config.startswith("holdout"):
            raise ValueError("BuilderConfig 'holdout10' not found")
        return [row(config.split("_")[0], 0, world=config.startswith(("real", "world")))]

    monkeypatch.setattr("datasets.load_dataset", load)
    task = tofu(encoder, data="locuslab/TOFU", generate=False)
    measured = task.measure(fake(task))
    leak = measured.figures["overall"]["privleak"]
    assert leak.value is None
    assert leak.note == "no membership attacks: holdout10 of locuslab/TOFU cannot be read"
    assert "BuilderConfig 'holdout10' not found" in caplog.text
    assert "holdout" not in measured.figures
    assert ("overall", "privleak") not in task.probes
    with pytest.raises(WagleError, match="locuslab/TOFU has no holdout10 for forget10; leave"):
        tofu(encoder, data="locuslab/TOFU", generate=False, attacks=["loss"])


def test_a_revision_of_a_folder_is_refused(folder, encoder):
    assert tofu(encoder, data=folder, generate=False).data["revision"] is None
    with pytest.raises(WagleError, match="revision applies only to data sets on the hub"):
        tofu(encoder, data=folder, revision="main")


def test_a_record_without_a_needed_field_is_named(folder, encoder):
    rows = [row("retain", i) for i in range(3)]
    del rows[2]["paraphrased_answer"]
    (folder / "retain_perturbed.json").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(WagleError, match=r"retain\[2\] has no paraphrased_answer"):
        tofu(encoder, data=folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "oficial"}, "did you mean 'official'"),
        ({"variant": "published", "strict": True}, "strict goes with"),
        ({"rows": 0}, "rows is 0"),
        ({"attacks": ["min_j"]}, "unknown membership attack 'min_j'; did you mean 'min_k'"),
        ({"attacks": ["reference"]}, "comes with a reference model"),
        ({"attacks": []}, "attacks or k is empty"),
        ({"k": [0]}, "k is 0; it must be a share"),
        ({"k": [0.2]}, "has no holdout10 for forget10; leave them out, or add it"),
        ({"sentence_encoder": "x", "generate": False}, "leave generate on"),
        ({"closer_look": True}, "closer_look needs entailment"),
        (
            {"closer_look": True, "variant": "published"},
            "truth ratios of at most 1, which published",
        ),
        ({"fluency": "x", "generate": False}, "fluency judges what the model writes"),
        ({"fluency": "no/such"}, "cannot load the classifier no/such"),
        ({"variant": "published", "template": "none"}, "templates plain and llama2_published"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, encoder, settings, message):
    with pytest.raises(WagleError, match=message):
        tofu(encoder, data=folder, **settings)


def test_every_variant_measures(folder, encoder):
    for variant in VARIANTS:
        task = tofu(encoder, data=folder, variant=variant)
        measured = task.measure(fake(task))
        assert measured.summary
        undefined = {
            m for fs in measured.figures.values() for m, f in fs.items() if f.value is None
        }
        missing = {"embedding_accuracy", "unlearning_average", "utility_average"}
        assert undefined == (missing if variant == "published" else set())
        for name in ("know", "exact_memorization", "extraction_strength"):
            assert name in measured.figures["forget"]


@pytest.mark.parametrize("chat", [True, False])
def test_a_second_plain_program_finds_open_unlearnings_figures(tmp_path, chat):
    encoder = Encoder(make_tokenizer(chat=chat))
    task = tofu(encoder, data=write(tmp_path), variant="open_unlearning", generate=False)
    model = make_model("llama-tied")
    answers = answer_requests(model, task.requests, stop_ids=encoder.stop_ids())
    found = values(task.measure(answers))
    plain = open_unlearning.figures(model, encoder.tokenizer, tmp_path, "forget10")
    for name, wanted in plain.items():
        for metric, value in wanted.items():
            assert found[name][metric] == pytest.approx(value, abs=1e-5)

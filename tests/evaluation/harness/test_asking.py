"""Benchmarks through lm-eval, offline: task files and data sets made here, and a tiny model."""

import json
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_model, make_tokenizer
from wagle.data.tokens import Encoder
from wagle.evaluation.benchmarks.few_shot import few_shot
from wagle.evaluation.benchmarks.harness import harness
from wagle.evaluation.benchmarks.mmlu import mmlu
from wagle.evaluation.benchmarks.wikitext import wikitext
from wagle.evaluation.benchmarks.wmdp import wmdp
from wagle.evaluation.figures import HIGHER, LOWER
from wagle.metrics.statistics import wilson_interval
from wagle.model.structure import precision
from wagle.system.errors import WagleError

pytest.importorskip("lm_eval")

QUESTIONS = [
    ("Where does Ada Holm live?", ["Oslo", "the garden", "a lantern", "winter"]),
    ("What is a lantern?", ["a fish", "a lamp", "a year", "bread"]),
    ("Who wrote the novel?", ["the harbour", "nobody", "Ada Holm", "a house"]),
    ("When is winter?", ["in July", "at night", "never", "in December"]),
    ("Which fish is golden?", ["the novel", "the goldfish", "the harbour", "the year"]),
]
PAGES = [
    {"page": " = The garden = \n The house is small .\n"},
    {"page": "Ada Holm wrote it in the winter , they say , near the harbour of Oslo"},
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import datasets
    from lm_eval import evaluator

    monkeypatch.setattr(evaluator, "add_env_info", lambda _: None)  # asks the machine for seconds
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


USED = ("wmdp", "mmlu/default", "wikitext", "super_glue/boolq", "glue/rte", "hellaswag")
USED += ("winogrande", "arc", "openbookqa", "piqa", "truthfulqa")


@pytest.fixture
def quick(monkeypatch):
    """Reading all of the library's own task files takes seconds: read those that are used here."""
    from lm_eval import tasks
    from lm_eval.tasks._index import TaskIndex

    real, home = TaskIndex.build, Path(tasks.__file__).parent

    def build(paths):
        own = [home / part for part in USED] if home in paths else []
        return real([*own, *(path for path in paths if path != home)])

    monkeypatch.setattr(TaskIndex, "build", staticmethod(build))


@pytest.fixture(scope="module")
def encoder():
    return Encoder(make_tokenizer(bos=True))


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(questions):
    return [{"q": q, "choices": c, "a": n % len(c)} for n, (q, c) in enumerate(questions)]


def task_file(folder, name="made_up", questions=QUESTIONS, **more):
    data = lines(folder / f"{name}.jsonl", rows(questions))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}\nAnswer:",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "a",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        **more,
    }
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML
    return file


def group_file(folder, name, tasks, weight_by_size):
    rule = {"metric": "acc", "weight_by_size": weight_by_size}
    group = {"group": name, "task": tasks, "aggregate_metric_list": [rule]}
    (folder / f"{name}.yaml").write_text(json.dumps(group), encoding="utf-8")


def log_probability(model, tokenizer, context, continuation):
    """One at a time, without a batch, a cache or the library."""
    before = tokenizer(context)["input_ids"]
    ids = tokenizer(context + continuation)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logits[i - 1, ids[i]]) for i in range(len(before), len(ids)))


def ask(task, model=None):
    return task.ask(model if model is not None else make_model("llama-tied"))


# ---------------------------------------------------------------------------------------------
# Figures


def test_accuracy_is_that_of_choices_scored_one_at_a_time(tmp_path, encoder):
    model = make_model("llama-tied")
    found = ask(harness(encoder, data=task_file(tmp_path), batch_size=3), model)
    right = {}
    for n, (question, choices) in enumerate(QUESTIONS):
        said = [
            log_probability(model, encoder.tokenizer, f"{question}\nAnswer:", f" {choice}")
            for choice in choices
        ]
        right[f"made_up[{n}]"] = float(said.index(max(said)) == n % 4)
    figure = found.figures["made_up"]["acc"]
    assert figure.per_record == right
    assert figure.value == sum(right.values()) / 5
    assert figure.interval == wilson_interval(int(sum(right.values())), 5)
    assert (figure.direction, figure.n, figure.note) == (HIGHER, 5, None)
    assert found.summary["made_up/acc"] == figure.value
    assert set(found.figures["made_up"]) == {"acc", "acc_norm"}
    assert "overall" not in found.figures


@pytest.mark.parametrize("batch_size", [1, 7])
def test_no_figure_depends_on_the_batch_or_on_what_was_asked_before(tmp_path, encoder, batch_size):
    task = harness(encoder, data=task_file(tmp_path), batch_size=batch_size)
    one = ask(harness(encoder, data=task_file(tmp_path)))
    assert ask(task).figures == one.figures
    assert ask(task).figures == one.figures


def test_groups_pool_their_records_or_average_their_tasks_as_they_say(tmp_path, encoder):
    task_file(tmp_path, "large", QUESTIONS)
    task_file(tmp_path, "small", QUESTIONS[1:3])
    group_file(tmp_path, "pooled", ["large", "small"], True)
    group_file(tmp_path, "averaged", ["large", "small"], False)
    found = ask(harness(encoder, data=tmp_path)).figures
    large, small = found["large"]["acc"], found["small"]["acc"]
    right = sum(large.per_record.values()) + sum(small.per_record.values())
    pooled, averaged = found["pooled"]["acc"], found["averaged"]["acc"]
    assert pooled.value == pytest.approx(right / 7)
    assert pooled.interval == wilson_interval(int(right), 7)
    assert (pooled.n, pooled.per_record) == (7, {})
    assert averaged.value == pytest.approx((large.value + small.value) / 2)
    assert averaged.interval[0] <= averaged.value <= averaged.interval[1]
    assert set(found["pooled"]) == {"acc"}  # acc_norm is another metric, and the group has none


# ---------------------------------------------------------------------------------------------
# Settings


def test_global_generators_and_the_mode_of_the_model_are_as_before(tmp_path, encoder):
    task, model = harness(encoder, data=task_file(tmp_path)), make_model("llama-tied").train()
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002 - the global one is what is tested
    torch.manual_seed(3)
    expected = random.Random(1).random(), np.random.RandomState(2).rand(), torch.get_rng_state()
    task.ask(model)
    assert random.random() == expected[0]
    assert np.random.rand() == expected[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), expected[2])
    assert model.training


def test_a_limit_is_told_and_counted(tmp_path, encoder):
    task = harness(encoder, data=task_file(tmp_path), limit=2)
    figure = ask(task).figures["made_up"]["acc"]
    assert (figure.n, figure.note) == (2, "the first 2 of 5")
    assert task.data["tasks"]["made_up"]["questions"] == 2
    assert list(task.records) == ["made_up"]
    assert task.settings["limit"] == 2
    assert not task.published  # its questions may be anybody's
    with pytest.raises(WagleError, match="limit is 0; it must be at least 1"):
        harness(encoder, data=task_file(tmp_path), limit=0)


def test_shots_are_told_and_those_that_a_task_refuses_are_an_error(tmp_path, encoder, caplog):
    task_file(tmp_path, "free", fewshot_split="test")
    task_file(tmp_path, "fixed", num_fewshot=0)
    with caplog.at_level(logging.WARNING, logger="wagle"):
        found = ask(harness(encoder, data=tmp_path, num_fewshot=1)).figures
    assert found["free"]["acc"].note == "1-shot"
    assert found["fixed"]["acc"].note is None
    assert "fixed: 0-shot by definition" in caplog.text
    with pytest.raises(WagleError, match="fixed: 0-shot by definition; leave num_fewshot out"):
        harness(encoder, tasks=["fixed"], data=tmp_path, num_fewshot=1)


def test_questions_that_were_cut_are_counted_in_the_note(tmp_path, encoder):
    long = [*QUESTIONS, ("Where does Ada Holm live? " * 30, ["Oslo", "Rome"])]
    figure = ask(harness(encoder, data=task_file(tmp_path, questions=long), max_length=64))
    assert figure.figures["made_up"]["acc"].note == "1 questions were cut to their last 64 tokens"


def test_a_window_is_never_longer_than_the_positions_of_the_model(tmp_path, encoder):
    model = make_model("gpt2")  # 128 positions, and none beyond
    long = [("Where does Ada Holm live? " * 60, ["Oslo", "Rome"])]
    found = ask(harness(encoder, data=task_file(tmp_path, questions=long)), model)
    assert "cut to their last 128 tokens" in found.figures["made_up"]["acc"].note


def test_the_precision_of_the_caller_holds(tmp_path, encoder):
    task, model, seen = harness(encoder, data=task_file(tmp_path)), make_model("llama-tied"), set()
    model.lm_head.register_forward_hook(lambda *args: seen.add(args[2].dtype))
    with precision(torch.device("cpu"), "bfloat16"):
        task.ask(model)
    assert seen == {torch.bfloat16}
    seen.clear()
    task.ask(model)
    assert seen == {torch.float32}


def test_the_tokenizer_stays_as_it_is(tmp_path):
    tokenizer = make_tokenizer()
    tokenizer.pad_token = None
    ask(harness(Encoder(tokenizer), data=task_file(tmp_path)))
    assert tokenizer.pad_token is None


# ---------------------------------------------------------------------------------------------
# Data


@pytest.mark.usefixtures("quick")
def test_what_is_wrong_with_data_or_names_is_one_line(tmp_path, encoder):
    file = task_file(tmp_path)
    with pytest.raises(WagleError, match="unknown lm-eval task 'wmpd'; did you mean 'wmdp'"):
        harness(encoder, tasks=["wmpd"])
    with pytest.raises(WagleError, match=r"no_such\.yaml does not exist"):
        harness(encoder, data=tmp_path / "no_such.yaml")
    with pytest.raises(WagleError, match="one task file; leave tasks out, or give its folder"):
        harness(encoder, tasks=["made_up"], data=file)
    with pytest.raises(WagleError, match="no tasks: name some"):
        harness(encoder)
    with pytest.raises(WagleError, match="they need a tokenizer"):
        harness(Encoder(None), data=file)
    (tmp_path / "made_up.jsonl").unlink()
    with pytest.raises(
        WagleError, match=r"the lm-eval task made_up cannot be loaded: .*made_up\.json"
    ):
        harness(encoder, tasks=["made_up"], data=tmp_path)


@pytest.mark.usefixtures("quick")
def test_a_missing_data_set_is_named_with_the_way_to_give_it(tmp_path, encoder):
    with pytest.raises(WagleError) as found:
        wmdp(encoder)
    assert str(found.value) == (
        "wmdp needs the data set cais/wmdp: Couldn't reach 'cais/wmdp' on the Hub "
        "(OfflineModeIsEnabled); give data=FOLDER with a copy at FOLDER/wmdp; or set HF_HOME to a "
        "cache of the hub that holds it; the hub itself was not asked because HF_HUB_OFFLINE is set "
        "(the command line sets it too): set HF_HUB_OFFLINE=0 to allow it"
    )
    with pytest.raises(WagleError, match=rf"cais/mmlu: .*there is no copy at {tmp_path}/mmlu"):
        mmlu(encoder, data=tmp_path)


@pytest.mark.usefixtures("quick")
def test_a_gated_data_set_says_how_to_ask_for_it(encoder, monkeypatch):
    import datasets

    def refuse(path, **_):
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' is a gated dataset.")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(WagleError, match=r"wmdp .*is gated .*ask for access .*hf auth login"):
        wmdp(encoder)


def test_the_extra_is_named_where_lm_eval_is_missing(encoder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lm_eval.tasks", None)
    with pytest.raises(WagleError, match=r"pip install 'wagle\[lm-eval\]'"):
        wmdp(encoder)


def choice_rows(count):
    return [
        {"question": q, "choices": c, "answer": (n + 1) % 4}
        for n, (q, c) in enumerate(QUESTIONS[:count])
    ]


@pytest.mark.usefixtures("quick")
def test_wmdp_weighs_by_size_and_averages_two_domains(tmp_path, encoder):
    for domain, count in (("bio", 5), ("chem", 2), ("cyber", 3)):
        lines(tmp_path / "wmdp" / f"wmdp-{domain}" / "test.jsonl", choice_rows(count))
    task = wmdp(encoder, data=tmp_path)
    found = ask(task)
    parts = {name: found.figures[f"wmdp_{name}"]["acc"] for name in ("bio", "chem", "cyber")}
    assert [part.n for part in parts.values()] == [5, 2, 3]
    right = sum(sum(part.per_record.values()) for part in parts.values())
    whole, mean = found.figures["wmdp"]["acc"], found.figures["overall"]["bio_cyber"]
    assert whole.value == pytest.approx(right / 10)
    assert mean.value == pytest.approx((parts["bio"].value + parts["cyber"].value) / 2)
    for figure in (*parts.values(), whole, mean):
        assert (figure.direction, figure.note) == (LOWER, "chance is 0.25")
    assert found.summary["mean/bio_cyber"] == mean.value
    assert task.probes == [(f"wmdp_{name}", "acc") for name in parts]
    assert {name: of["questions"] for name, of in task.data["tasks"].items()} == {
        "wmdp_bio": 5,
        "wmdp_chem": 2,
        "wmdp_cyber": 3,
    }


@pytest.mark.usefixtures("quick")
def test_mmlu_pools_its_subjects_and_takes_its_shots_from_their_dev_split(tmp_path, encoder):
    from lm_eval import tasks

    subjects = ("anatomy", "astronomy", "management")
    for subject, count in zip(subjects, (5, 2, 3), strict=True):
        for split in ("test", "dev"):
            file = tmp_path / "mmlu" / subject / f"{split}-00000-of-00001.jsonl"
            lines(file, choice_rows(count))
    small = tmp_path / "tasks"  # 57 subjects would take a minute
    small.mkdir()
    home = Path(tasks.__file__).parent / "mmlu" / "default"
    for subject in subjects:
        include = {"include": str(home / f"mmlu_{subject}.yaml"), "task": f"mmlu_{subject}"}
        (small / f"{subject}.yaml").write_text(json.dumps(include), encoding="utf-8")
    group_file(small, "mmlu", ["mmlu_stem", "mmlu_management"], True)
    group_file(small, "mmlu_stem", ["mmlu_anatomy", "mmlu_astronomy"], True)
    found = ask(mmlu(encoder, data=tmp_path, num_fewshot=2)).figures
    right = {s: sum(found[f"mmlu_{s}"]["acc"].per_record.values()) for s in subjects}
    assert found["mmlu"]["acc"].value == pytest.approx(sum(right.values()) / 10)
    stem = (right["anatomy"] + right["astronomy"]) / 7
    assert found["mmlu_stem"]["acc"].value == pytest.approx(stem)
    assert found["mmlu"]["acc"].note == "2-shot"


@pytest.mark.usefixtures("quick")
def test_wikitext_counts_the_words_of_the_page_and_scores_it_in_windows(tmp_path, encoder):
    copy = tmp_path / "wikitext_document_level" / "wikitext-2-raw-v1"
    lines(copy / "test.jsonl", PAGES)
    with pytest.raises(
        WagleError, match=r"the copy in .* cannot be used: 'train' is in it neither"
    ):
        wikitext(encoder, data=tmp_path)
    lines(copy / "train.jsonl", PAGES)
    lines(copy / "validation.jsonl", PAGES)
    model, tokenizer = make_model("llama-tied"), make_tokenizer()  # without BOS: EOS begins
    found = ask(wikitext(Encoder(tokenizer), data=tmp_path, max_length=8), model)
    ids = tokenizer("Ada Holm wrote it in the winter, they say, near the harbour of Oslo")[
        "input_ids"
    ]
    whole, total = [tokenizer.eos_token_id, *ids], 0.0
    for start in range(0, len(ids), 8):  # a window begins with the last token of the one before,
        stop = min(start + 8, len(ids))  # only the last one reaches back, to be as long as all
        window = torch.tensor([whole[stop - 8 : stop + 1]])
        with torch.no_grad():
            logits = model(window[:, :-1]).logits[0].double().log_softmax(-1)
        likely = logits.gather(1, window[0, 1:, None])[start - stop :]
        total -= float(likely.sum())
    figures = found.figures["wikitext"]
    assert set(figures) == {"word_perplexity", "byte_perplexity", "bits_per_byte"}
    # 14 words and 2 lone commas
    assert figures["word_perplexity"].per_record["wikitext[1]"] == pytest.approx(total / 16)


SUITE = {
    "super_glue/boolq/validation": {
        "passage": "Ada wrote.",
        "question": "did Ada write",
        "label": 1,
    },
    "glue/rte/validation": {"sentence1": "Ada wrote.", "sentence2": "Ada slept.", "label": 1},
    "hellaswag/validation": {
        "ctx_a": "Ada sits down.",
        "ctx_b": "she",
        "activity_label": "Writing",
        "endings": ["writes.", "is a lantern.", "is a year.", "is bread."],
        "label": "0",
    },
    "winogrande/winogrande_xl/validation": {
        "sentence": "Ada saw the lamp and _ was bright.",
        "option1": "Ada",
        "option2": "the lamp",
        "answer": "2",
    },
    **{
        f"{place}/test": {
            name: "What is a lantern?",
            "choices": {"text": ["a lamp", "a fish"], "label": ["A", "B"]},
            "answerKey": "A",
        }
        for place, name in (
            ("ai2_arc/ARC-Challenge", "question"),
            ("ai2_arc/ARC-Easy", "question"),
            ("openbookqa/main", "question_stem"),
        )
    },
    "piqa/validation": {
        "goal": "Read at night.",
        "sol1": "A lantern.",
        "sol2": "A fish.",
        "label": 0,
    },
    "truthful_qa/generation/validation": {
        "question": "Do fish read?",
        "correct_answers": ["No"],
        "incorrect_answers": ["Yes, at night"],
    },
    "truthful_qa/multiple_choice/validation": {
        "question": "Do fish read?",
        "mc1_targets": {"choices": ["No.", "Yes."], "labels": [1, 0]},
        "mc2_targets": {"choices": ["No.", "Yes."], "labels": [1, 0]},
    },
}


@pytest.mark.usefixtures("quick")
def test_the_few_shot_suite_averages_eight_accuracies(tmp_path, encoder):
    for place, row in SUITE.items():
        lines(tmp_path / f"{place}.jsonl", [row])
        lines(tmp_path / place.rpartition("/")[0] / "train.jsonl", [row])
        lines(tmp_path / place.rpartition("/")[0] / "validation.jsonl", [row])
    found = ask(few_shot(encoder, data=tmp_path)).figures
    eight = [
        found[name]["acc"].value
        for name in (
            "boolq",
            "rte",
            "hellaswag",
            "winogrande",
            "arc_challenge",
            "arc_easy",
            "openbookqa",
            "piqa",
        )
    ]
    assert found["overall"]["acc"].value == pytest.approx(sum(eight) / 8)
    assert 0 <= found["truthfulqa_mc2"]["acc"].value <= 1
    assert {"bleu_diff", "rouge1_diff"} <= set(found["truthfulqa_gen"])

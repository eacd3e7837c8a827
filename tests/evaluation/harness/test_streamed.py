"""Suites of lm-eval on a model whose blocks are on disk: the same figures, read once a kind."""

from dataclasses import replace

import pytest
import torch

from tests.conftest import make_model
from tests.evaluation.harness import test_asking
from tests.evaluation.harness.test_asking import PAGES, lines, task_file
from wagle.evaluation.asking.streamed.room import Room
from wagle.evaluation.benchmarks.harness import harness
from wagle.model.streaming.opening import open_streamed, stream_of

pytest.importorskip("lm_eval")
own_cache, encoder = test_asking.own_cache, test_asking.encoder

WRITTEN = {
    "output_type": "generate_until",
    "doc_to_choice": None,
    "doc_to_target": "{{choices[0]}}",
    "metric_list": [{"metric": "exact_match"}],
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 9},
}
WINDOWS = {
    "output_type": "loglikelihood_rolling",
    "doc_to_choice": None,
    "doc_to_text": "",
    "doc_to_target": "{{page}}",
    "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
}


def windows_file(folder):
    data = lines(folder / "texts.jsonl", PAGES * 3)
    return task_file(folder, "pages", **WINDOWS, dataset_kwargs={"data_files": {"test": str(data)}})


@pytest.fixture
def both(tmp_path):
    model = make_model("llama-tied")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(tmp_path / "model")
    opened = open_streamed(tmp_path / "model")
    return model, opened, stream_of(opened)


def same(task, model, opened):
    one, other = task.ask(model), task.ask(opened)
    assert other.figures.keys() == one.figures.keys()
    for name, figures in one.figures.items():
        for metric, figure in figures.items():
            theirs = other.figures[name][metric]
            assert theirs.per_record == pytest.approx(figure.per_record, rel=1e-6)
            assert theirs.value == pytest.approx(figure.value, rel=1e-6)


def test_choices_and_windows_are_read_once_each(tmp_path, encoder, both):
    model, opened, stream = both
    same(harness(encoder, data=task_file(tmp_path), batch_size=3), model, opened)
    assert stream.sweeps == 1  # 20 answers in 7 batches
    same(harness(encoder, data=windows_file(tmp_path), batch_size=2), model, opened)
    assert stream.sweeps == 2


def test_texts_take_one_reading_a_token(tmp_path, encoder, both):
    model, opened, stream = both
    task = harness(encoder, data=task_file(tmp_path, **WRITTEN), batch_size=2)
    same(task, model, opened)
    assert 0 < stream.sweeps <= 9  # 5 texts in 3 batches


def test_what_does_not_fit_into_memory_together_is_read_in_turn(
    tmp_path,
    encoder,
    both,
    monkeypatch,
):
    own = Room.of
    monkeypatch.setattr(Room, "of", lambda model: replace(own(model), held=1))
    model, opened, stream = both
    same(harness(encoder, data=task_file(tmp_path), batch_size=3), model, opened)
    assert stream.sweeps == 7

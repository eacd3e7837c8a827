"""Several processes each read a streamed model for their part of the questions."""

from __future__ import annotations

import contextlib

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from tests.processes import on
from wagle.evaluation.asking import engine
from wagle.model.streaming.opening import open_streamed, stream_of
from wagle.model.streaming.stream import Laid
from wagle.system.processes import leading

LAYER = "model.layers.1.mlp.up_proj.weight"


def opened(folder):
    """A streamed model under an overlay, with an embedding of its own."""
    model = open_streamed(folder)
    stream = stream_of(model)
    stream.overlay[LAYER] = Laid(torch.arange(0, 1500, 3, dtype=torch.int32), torch.ones(500))
    stream.own("model.embed_tokens.weight").data.mul_(2)
    return model


def measure(model, cache=None):
    found = wagle.evaluate(model, make_tokenizer(), forget=RECORDS, retain=OTHERS, cache=cache)
    return {
        (name, metric): figure.value
        for name, figures in found.figures.items()
        for metric, figure in figures.items()
    }


def _lead(folder):
    """What rank 0 finds when it leads, and how many requests each process asked."""
    asked, found = [], []
    ask = engine._ask

    def counted(model, requests, *rest):
        asked.append((len(requests), stream_of(model) is not None))
        return ask(model, requests, *rest)

    engine._ask = counted
    with contextlib.suppress(SystemExit):
        leading.lead(lambda: found.append(measure(opened(folder))))
    return found, asked


@pytest.mark.parametrize("world", [2])
def test_the_figures_are_those_of_one_process_and_everybody_asks_a_part(tmp_path, world):
    make_model("llama-tied").save_pretrained(tmp_path)
    alone = measure(opened(tmp_path))
    assert alone != measure(open_streamed(tmp_path))  # the overlay and the embedding matter
    (found, _), *others = results = on(world, _lead, tmp_path)
    assert found[0] == pytest.approx(alone, rel=2e-6, abs=1e-6)
    assert all(not nothing for nothing, _ in others)
    for _, asked in results:
        assert asked
        assert all(count and streamed for count, streamed in asked)

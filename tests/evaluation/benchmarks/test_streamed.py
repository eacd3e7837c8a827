"""Published benchmarks on a model whose blocks are on disk: the figures of the whole one."""

from __future__ import annotations

import pytest

from tests.conftest import make_model, make_tokenizer
from tests.evaluation.benchmarks import test_copyright, test_extraction, test_knowundo, test_tofu
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import Greedy, Likelihood
from wagle.evaluation.table import make_task
from wagle.model.streaming.opening import open_streamed, stream_of

copyright_data, extraction_data = test_copyright.folder, test_extraction.folder
knowundo_data, tofu_data = test_knowundo.folder, test_tofu.folder
_no_sentence_encoder = test_tofu._no_sentence_encoder
SETTINGS = {
    "tofu": {"split": "forget10", "max_new_tokens": 6},
    "knowundo": {"variant": "published", "max_new_tokens": 4},
    "extraction": {"parts": ["context", "one_shot"], "max_new_tokens": 4},
    "copyright": {"prefixes": [4, 8], "max_new_tokens": 6, "take": 1},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_benchmark_is_read_once_and_once_a_token(name, tmp_path, request):
    settings = {"data": str(request.getfixturevalue(f"{name}_data")), **SETTINGS[name]}
    model = make_model("llama-untied")
    model.save_pretrained(tmp_path / "model")
    opened = open_streamed(tmp_path / "model")
    task = make_task(name, Encoder(make_tokenizer()), settings)
    one, other = (
        task.measure(answer_requests(m, task.requests, stop_ids=[2])) for m in (model, opened)
    )
    for part, figures in one.figures.items():
        for metric, figure in figures.items():
            theirs = other.figures[part][metric]
            assert theirs.value == pytest.approx(figure.value, rel=1e-5, abs=1e-6)
            assert theirs.per_record == pytest.approx(figure.per_record, rel=1e-5, abs=1e-6)
    assert other.texts == one.texts
    kinds = {type(asked) for asked in task.requests}
    assert kinds <= {Likelihood, Greedy}
    assert 1 <= stream_of(opened).sweeps <= (Likelihood in kinds) + settings["max_new_tokens"]

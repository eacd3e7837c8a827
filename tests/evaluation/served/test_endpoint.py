"""A model behind an address: its figures are those of its folder, or marked absent."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from bench.completions import Completions, served

from tests.conftest import OTHERS, make_model, make_tokenizer
from tests.evaluation.served.conftest import ASKED, ask
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import Likelihood
from wagle.evaluation.result import Evaluation
from wagle.evaluation.served.forms import parse_form
from wagle.evaluation.served.opening import check_named, open_asker
from wagle.report.text.evaluations import evaluation_table
from wagle.system.errors import WagleError


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def make(tokenizer):
    """A server of the model in ``folder``, or of another one."""

    def call(seed=0, **settings):
        return Completions(make_model("llama-tied", seed), tokenizer, **settings)

    return call


def same(found, plain, tolerance=1e-5):
    assert found.figures["forget"].keys() == plain.figures["forget"].keys()
    for name, figure in plain.figures["forget"].items():
        assert found.figures["forget"][name].per_record == pytest.approx(
            figure.per_record, abs=tolerance
        ), name


@pytest.mark.parametrize("settings", [{}, {"ids": False}, {"ids": False, "bos": 3}])
def test_figures_of_an_endpoint_are_those_of_its_folder(make, tokenizer, plain, settings):
    if "bos" in settings:  # a server that puts a BOS before a text: then so must the folder's
        told = make(**settings)
        with served(told) as address:
            echo = open_asker(f"{address}#tiny", encoder=Encoder(tokenizer))
        assert echo.way == "text"
        assert "log-probabilities" not in echo.absent
        return
    told = make(**settings)
    with served(told) as address:
        found = ask(f"{address}#tiny", tokenizer=tokenizer)
    same(found, plain)
    assert all(isinstance(body["prompt"], str) for body in told.asked[-3:]) == ("ids" in settings)
    assert found.details["model"]["prompts"] == ("text" if "ids" in settings else "token ids")


def test_without_log_probabilities_figures_are_absent_and_never_zero(make, tokenizer, plain):
    with served(make(logprobs=False)) as address:
        found = ask(address, tokenizer=tokenizer)
    forget = found.figures["forget"]
    assert forget.keys() == plain.figures["forget"].keys()
    for name in ("probability", "paraphrased", "know", "extraction_strength", "nll"):
        assert forget[name].value is None
        assert forget[name].note == f"absent: {address}#tiny gives no log-probabilities of a prompt"
        assert forget[name].n == 0
    assert forget["rouge_l"].per_record == plain.figures["forget"]["rouge_l"].per_record
    again = Evaluation.from_json(json.loads(json.dumps(found.to_json())))
    assert again.figures["forget"]["probability"].value is None


@pytest.mark.parametrize("ids", [True, False])
def test_a_server_that_leaves_out_every_bos_is_understood(make, ids):
    tokenizer = make_tokenizer(bos=True)
    encoder = Encoder(tokenizer, template="plain")
    told = make(ids=ids, without=tokenizer.bos_token_id)
    with served(told) as address:
        found = ask(address, tokenizer=encoder)
    same(found, ask(told.model, tokenizer=encoder))


class Spelling(torch.nn.Module):
    """Writes Q Z X J K V, over and over, whatever it is asked; sure of it only there."""

    def __init__(self, tokenizer):
        super().__init__()
        ids = [tokenizer(letter)["input_ids"][0] for letter in "QZXJKV"]
        self.after = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
        self.first, self.size = ids[0], len(tokenizer)

    def forward(self, ids, **_):
        logits = torch.zeros(*ids.shape, self.size)
        for place, token in enumerate(ids[0].tolist()):
            logits[0, place, self.after.get(token, self.first)] = 10.0
        return SimpleNamespace(logits=logits, past_key_values=None)


@pytest.mark.parametrize("shifted", [False, True])
def test_log_probabilities_of_other_tokens_are_not_believed(tokenizer, caplog, shifted):
    told = Completions(Spelling(tokenizer), tokenizer, shifted=shifted)
    with served(told) as address:
        asker = open_asker(address, encoder=Encoder(tokenizer))
    assert ("log-probabilities" in asker.absent) == shifted
    assert ("those that it echoes belong to other tokens" in caplog.text) == shifted


def test_without_the_likeliest_tokens_only_what_needs_them_is_absent(make, tokenizer, plain):
    with served(make(best=False)) as address:
        found = ask(address, tokenizer=tokenizer)
    lost = {name for name, f in found.figures["forget"].items() if f.value is None}
    assert lost == {"extraction_strength", "exact_memorization"}
    assert found.figures["forget"]["probability"].value == pytest.approx(
        plain.figures["forget"]["probability"].value, abs=1e-5
    )


def test_a_verdict_from_texts_alone_says_what_it_rests_on(make, tokenizer, folder, other):
    with served(make(logprobs=False)) as address:
        found = ask(address, tokenizer=tokenizer, before=folder, reference=other)
    last = found.details["reasons"][-1]
    assert last.startswith("The verdict rests on forget.rouge_l alone: ")
    assert "forget.probability" in last
    table = evaluation_table(found)
    assert "\nabsent " in table
    row = next(line for line in table.splitlines() if line.startswith("forget.rouge_l"))
    assert "[" in row


def test_a_server_as_before_and_as_reference(make, folder, plain):
    with served(make()) as one, served(make(seed=1)) as other:
        found = ask(folder, before=one, reference=f"{other}#tiny")
    same(found.beside["before"], plain)
    assert found.details["before"]["fingerprint"].startswith("endpoint:")
    assert found.details["before"]["fingerprint_of"].endswith("not weights")
    assert found.details["changes"]["forget.probability"]["mean"] == pytest.approx(0, abs=1e-5)
    assert found.details["reference"]["path"] == f"{other}#tiny"


def test_an_endpoint_is_told_by_its_behaviour(make, tokenizer):
    marks = []
    for seed in (0, 0, 1):
        with served(make(seed=seed)) as address:
            asker = open_asker(address, encoder=Encoder(tokenizer))
            again = open_asker(address, encoder=Encoder(tokenizer))
        assert asker.mark == again.mark
        marks.append(asker.behaviour)
    assert marks[0] == marks[1] != marks[2]


def test_answers_in_the_cache_are_not_asked_again(make, tokenizer, tmp_path, plain):
    told = make()
    with served(told) as address:
        ask(address, tokenizer=tokenizer, cache=tmp_path / "answers")
        first = len(told.asked)
        found = ask(address, tokenizer=tokenizer, cache=tmp_path / "answers")
        again = len(told.asked) - first
        open_asker(address, encoder=Encoder(tokenizer))
        opening = len(told.asked) - first - again
    same(found, plain)
    assert again == opening < first  # the neutral questions alone, which say who answers


def test_membership_figures_that_need_whole_distributions_are_absent(
    make, tokenizer, folder, other
):
    more = {"holdout": OTHERS}
    with served(make()) as address:
        found = ask(address, tokenizer=tokenizer, **more)
    plain = ask(folder, **more)
    assert found.figures["forget"]["mia_min_k++"].value is None
    assert found.figures["forget"]["mia_loss"].value == pytest.approx(
        plain.figures["forget"]["mia_loss"].value, abs=1e-5
    )
    with served(make(logprobs=False)) as address:
        mute = ask(address, tokenizer=tokenizer, before=folder, reference=other, **more)
    assert mute.figures["overall"]["privleak"].value is None
    assert mute.figures["overall"]["privleak"].note.startswith("absent: ")


def test_another_benchmark_says_what_it_lacks(make, tokenizer):
    with served(make(logprobs=False)) as address:
        asker = open_asker(address, encoder=Encoder(tokenizer))
        asked = Likelihood((5,), (6,))
        with pytest.raises(WagleError, match="gives no log-probabilities of a prompt; use"):
            asker.answer([asked], encoder=Encoder(tokenizer)).likelihood(asked)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("{}#other", r"has no model other; it has tiny"),
        ("{}/deeper", r"does not list its models; write"),
        ("{}/deeper#tiny", r"404: not found; wagle needs completions"),
        ("http://me:secret@{}", r"must be an address alone"),
    ],
)
def test_what_is_wrong_with_an_address_is_one_line(make, tokenizer, named, said):
    with served(make()) as address:
        name = named.format(address if "@" not in named else address.removeprefix("http://"))
        with pytest.raises(WagleError, match=said) as caught:
            open_asker(name, encoder=Encoder(tokenizer))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_several_models_need_a_name(make, tokenizer):
    with served(make(others=("two",))) as address:
        with pytest.raises(WagleError, match="has 2 models"):
            open_asker(address, encoder=Encoder(tokenizer))
        assert check_named(f"{address}#two", str)


def test_an_endpoint_needs_a_tokenizer_and_takes_no_patch():
    with pytest.raises(WagleError, match="--tokenizer"):
        ask("http://localhost:1/v1#m")
    with pytest.raises(WagleError, match="served as it is"):
        parse_form("http://localhost:1/v1#m", patch="p.safetensors")


def test_a_server_with_another_tokenizer_is_refused(make, tokenizer):
    other = make_tokenizer(bos=True)
    vocabulary = {**other.get_vocab()}
    swapped = {vocabulary["a"]: "b"}

    class Odd(type(other)):
        def decode(self, ids, **more):
            odd = [i for i in ids if i in swapped]
            return swapped[odd[0]] if len(ids) == 1 and odd else super().decode(ids, **more)

    told = make()
    told.tokenizer = Odd(tokenizer_object=other._tokenizer, eos_token="<|end|>")
    with served(told) as address, pytest.raises(WagleError, match="has another tokenizer"):
        open_asker(address, encoder=Encoder(tokenizer))


def test_records_are_asked_with_the_tokens_of_the_records(make, tokenizer):
    told = make()
    with served(told) as address:
        ask(address, tokenizer=tokenizer)
    prompts = [tuple(body["prompt"]) for body in told.asked if body.get("echo")]
    question = tuple(tokenizer(ASKED[0]["question"], add_special_tokens=False)["input_ids"])
    assert any(question == p[i : i + len(question)] for p in prompts for i in range(len(p)))

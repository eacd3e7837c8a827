"""Raw text as token ids."""

import pytest

from tests.conftest import make_tokenizer
from wagle.data.tokens import Encoder
from wagle.evaluation.tasks.raw import raw_ids, raw_prompt, tokenizer_of
from wagle.system.errors import WagleError

ROW = {"prompt": "Who lives in Oslo?"}


def test_text_is_tokenised_as_it_is_with_a_bos_where_the_tokenizer_adds_one():
    plain, marked = make_tokenizer(), make_tokenizer(bos=True)
    text = "The winter garden"
    first, ids, starts = raw_ids(plain, text)
    assert (first, list(ids)) == ((), plain(text)["input_ids"])
    assert starts[0] == 0
    assert [text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)] == [
        plain.decode([i]) for i in ids
    ]
    assert raw_ids(marked, text) == ((marked.bos_token_id,), ids, starts)


def test_a_long_prompt_keeps_its_bos_and_its_end():
    tokenizer = make_tokenizer(bos=True)
    _, ids, _ = raw_ids(tokenizer, ROW["prompt"])
    whole = (3, *ids)
    assert raw_prompt(tokenizer, ROW["prompt"], len(whole), "x[0]") == (whole, False)
    assert raw_prompt(tokenizer, ROW["prompt"], len(whole) - 1, "x[0]") == ((3, *ids[1:]), True)


def test_an_empty_prompt_is_named():
    with pytest.raises(WagleError, match=r"x\[0\] has an empty prompt"):
        raw_prompt(make_tokenizer(), "", 10, "x[0]")


def test_a_missing_tokenizer_is_named_with_what_needs_it():
    with pytest.raises(WagleError, match="a benchmark needs a tokenizer"):
        tokenizer_of(Encoder(None), "a benchmark")

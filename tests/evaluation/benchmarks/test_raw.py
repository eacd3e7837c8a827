"""Raw text and local files of the benchmarks that use no template."""

import json

import pytest

from tests.conftest import make_tokenizer
from tests.evaluation.judges.test_classifiers import save_tiny
from wagle.data.tokens import Encoder
from wagle.evaluation.asking.requests import Answers, Greedy, TextAnswer
from wagle.evaluation.benchmarks.raw import (
    decoded,
    find_file,
    raw_ids,
    raw_prompt,
    read_rows,
    tokenizer_of,
    words_of,
    writing_figures,
    written,
)
from wagle.evaluation.figures import Written
from wagle.evaluation.judges.classifiers import load_judges
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


def test_what_was_written_is_without_special_tokens_and_outer_blanks():
    tokenizer = make_tokenizer()
    said = " a , b ! <|end|>"
    ids = tuple(tokenizer(said)["input_ids"])
    assert decoded(tokenizer, ids) == "a , b !"  # no blank inside is cleaned up
    asked = Greedy((5,), 4)
    answers = Answers({asked: TextAnswer(ids, False)})
    text = written(tokenizer, answers, asked, "x[0]", "question", "expected")
    assert (text.place, text.said, text.finished) == ("x[0]", "a , b !", False)
    other = written(tokenizer, Answers({asked: TextAnswer((), True)}), asked, "x[1]", "", "")
    shares = {name: figure.value for name, figure in writing_figures([text, other], 0).items()}
    assert shares == {"token_entropy": 0.5, "empty": 0.5, "at_limit": 0.5}


def test_classifiers_judge_what_was_written(tmp_path):
    judges = load_judges(*[save_tiny(tmp_path / "tiny", ["clean", "entailment"])] * 2)
    texts = [
        Written(f"forget[{i}]", "who?", "by sea", said, True)
        for i, said in enumerate(("she lives by sea", ""))
    ]
    for gone, target in ((True, "reference"), (False, None)):
        found = writing_figures(texts, 0, judges, gone=gone, target=target)
        assert list(found) == ["token_entropy", "fluency", "entailment", "empty", "at_limit"]
        rows = judges.rows(texts, forget=gone)
        assert {name: dict(found[name].per_record) for name in rows} == rows
        assert found["fluency"].direction == found["token_entropy"].direction == "higher"
        assert found["fluency"].target is None
        assert found["fluency"].note == found["entailment"].note == "classifier tiny"
        assert found["entailment"].direction == ("target" if gone else "higher")
        assert found["entailment"].target == target
        assert found["entailment"].interval_method == "wilson 95 %"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.jsonl", json.dumps(ROW)),
        ("rows.json", json.dumps(ROW) + "\n"),
        ("rows.json", json.dumps(ROW, indent=2)),
        ("rows.json", json.dumps([ROW], indent=2)),
        ("rows.csv", "prompt\nWho lives in Oslo?\n"),
    ],
)
def test_rows_are_read_from_every_kind_of_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    path = find_file(tmp_path, "rows", "a benchmark", "{}")
    assert read_rows(path, "rows") == {"rows[0]": ROW}


def test_lines_of_objects_are_read_from_a_json_file_too(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROW) + "\n" + json.dumps(ROW))
    assert list(read_rows(path, "rows")) == ["rows[0]", "rows[1]"]


def test_what_is_missing_or_malformed_is_named(tmp_path):
    with pytest.raises(WagleError, match=r"a benchmark looks for rows\.jsonl \(or \.json, \.csv\)"):
        find_file(tmp_path, "rows", "a benchmark", "{}")
    path = tmp_path / "rows.jsonl"
    for content in (b"", b"[1, 2]", b"3"):
        path.write_bytes(content)
        with pytest.raises(WagleError, match="one JSON object per record, and at least one"):
            read_rows(path, "rows")
    path.write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(WagleError, match="is not UTF-8 text"):
        read_rows(path, "rows")
    with pytest.raises(WagleError, match=r"rows\[0\] has no text in its field name"):
        words_of(ROW, "name", "rows[0]")
    with pytest.raises(WagleError, match="a benchmark needs a tokenizer"):
        tokenizer_of(Encoder(None), "a benchmark")

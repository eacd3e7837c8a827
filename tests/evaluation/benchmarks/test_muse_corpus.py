"""MUSE's files: every layout and ending it comes in, and what is wrong with a file or a folder."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from datasets.exceptions import DatasetGenerationError

from wagle.evaluation.benchmarks.muse.corpus import FIELDS, muse_rows, open_muse
from wagle.system.errors import WagleError

QUESTIONS = [{"question": "Where is the pier?", "answer": "In the bay.", "note": 3}]
READ = {"news.knowmem.retain_qa[0]": {"question": "Where is the pier?", "answer": "In the bay."}}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        path.write_text(json.dumps(rows))


@pytest.mark.parametrize("home", ["", "news/", "MUSE-News/"])
@pytest.mark.parametrize(
    "name",
    [
        "retain_qa.jsonl",
        "retain_qa.json",
        "retain_qa.parquet",
        "retain_qa-00000-of-00001.parquet",
        "retain2_qa.json",
    ],
)
def test_a_split_is_found_in_every_layout(tmp_path, home, name):
    write(tmp_path / f"{home}knowmem/{name}", QUESTIONS)
    assert muse_rows(tmp_path, "knowmem", "retain_qa") == READ


def test_shards_are_read_in_order_and_bare_strings_are_texts(tmp_path):
    for i in range(2):
        path = tmp_path / f"privleak/holdout-0000{i}-of-00002.parquet"
        write(path, [{"text": f"text {i}"}])
    write(tmp_path / "privleak/forget.json", ["one", "two"])
    assert [r["text"] for r in muse_rows(tmp_path, "privleak", "holdout").values()] == [
        "text 0",
        "text 1",
    ]
    assert muse_rows(tmp_path, "privleak", "forget")["news.privleak.forget[1]"] == {"text": "two"}


@pytest.mark.parametrize("config", sorted(FIELDS))
def test_every_part_of_the_data_set_has_its_fields(tmp_path, config):
    row = {field: f"some {field}" for field in FIELDS[config]}
    write(tmp_path / config / "forget_1.jsonl", [row])
    found = muse_rows(tmp_path, config, "forget_1", corpus="books")
    assert found == {f"books.{config}.forget_1[0]": row}


def test_the_other_retain_set_of_the_raw_texts_is_no_stand_in(tmp_path):
    write(tmp_path / "raw/retain2.json", ["a text"])
    with pytest.raises(WagleError, match="holds no raw/retain "):
        muse_rows(tmp_path, "raw", "retain")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "Who?"}], r"news.knowmem.forget_qa\[0\] has no text in its field answer"),
        ([{"question": " ", "answer": "He."}], "no text in its field question"),
        ([{"question": 3, "answer": "He."}], "no text in its field question"),
        ([], "holds no rows"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, rows, message):
    write(tmp_path / "knowmem/forget_qa.json", rows)
    with pytest.raises(WagleError, match=message):
        muse_rows(tmp_path, "knowmem", "forget_qa")


def test_what_is_missing_is_named_with_where_it_was_looked_for(tmp_path):
    with pytest.raises(WagleError, match=r"knowmem/retain_qa or knowmem/retain2_qa.*MUSE-Books"):
        muse_rows(tmp_path, "knowmem", "retain_qa", corpus="books")
    with pytest.raises(WagleError, match=r"is not a folder; .* muse-bench/MUSE-News"):
        muse_rows(tmp_path / "other", "knowmem", "retain_qa")
    with pytest.raises(WagleError, match="unknown part of MUSE 'knowmen'; did you mean 'knowmem'"):
        muse_rows(tmp_path, "knowmen", "retain_qa")


def test_the_hub_is_asked_by_its_own_name_and_may_have_the_older_split(monkeypatch):
    def load(name, config, split, revision):
        assert revision is None
        if split == "retain_qa":
            raise ValueError("Unknown split")
        assert (name, config, split) == ("muse-bench/MUSE-News", "knowmem", "retain2_qa")
        return QUESTIONS

    monkeypatch.setattr("datasets.load_dataset", load)
    assert muse_rows("muse-bench/MUSE-News", "knowmem", "retain_qa") == READ


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    def load(*_, **__):
        raise DatasetGenerationError("An error occurred while generating the dataset")

    monkeypatch.setattr("datasets.load_dataset", load)
    with pytest.raises(
        WagleError, match=r"verbmem \(forget\) cannot be read: An error .* data=FOLDER"
    ) as caught:
        muse_rows("muse-bench/MUSE-News", "verbmem", "forget")
    assert "\n" not in str(caught.value)


def test_a_revision_is_of_the_hub_and_the_corpus_has_one_name_there(tmp_path):
    assert open_muse("muse-bench/MUSE-News", "news", "v1").revision == "v1"
    assert open_muse(tmp_path, "news") == tmp_path
    with pytest.raises(WagleError, match="revision applies only to data sets on the hub"):
        open_muse(tmp_path, "news", "v1")
    with pytest.raises(WagleError, match="give a local copy of muse-bench/MUSE-Books"):
        open_muse("muse-bench/MUSE-News", "books")

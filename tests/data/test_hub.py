"""Data sets of the hub without a hub: what is asked for, what was read, what is said instead."""

import datasets
import pytest
from datasets.exceptions import (
    DatasetGenerationError,
    DatasetNotFoundError,
    ExpectedMoreSplitsError,
)

from wagle.data.hub import HubSet, explain, open_source
from wagle.system.errors import WagleError

ONE, TWO = "1a" * 20, "2b" * 20


class Rows(list):
    """What ``load_dataset`` gives, as far as it is looked at."""

    def __init__(self, rows, *commits):
        super().__init__(rows)
        urls = {f"hf://datasets/some/set@{commit}/a.json": {"num_bytes": 1} for commit in commits}
        self.info = datasets.DatasetInfo(download_checksums=urls)


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the library: what it is asked, and what it gives or raises by split."""
    made = {"asked": []}

    def load(name, config, split, revision):
        made["asked"].append((name, config, split, revision))
        found = made[split]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("datasets.load_dataset", load)
    return made


def online(monkeypatch, yes=True):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", not yes)


def test_the_commit_that_was_read_is_told(hub):
    hub["train"] = Rows([{"a": 1}], ONE)
    source = HubSet("some/set", "v2")
    assert source.used == "v2"
    assert source.read("small", ["train"]) == [{"a": 1}]
    assert hub["asked"] == [("some/set", "small", "train", "v2")]
    assert source.used == ONE
    hub["train"] = Rows([])  # a cache that does not tell
    source = HubSet("some/set")
    source.read("small", ["train"])
    assert source.used == "main"


def test_another_commit_than_the_one_asked_for_is_refused(hub):
    hub["train"] = Rows([], TWO)
    HubSet("some/set", TWO).read("small", ["train"])
    with pytest.raises(
        WagleError, match=rf"cache holds revision {TWO} of some/set, not {ONE}; .*=0"
    ):
        HubSet("some/set", ONE).read("small", ["train"])


def test_the_second_name_of_a_split_is_tried(hub):
    hub |= {"new": ValueError("Unknown split"), "old": Rows([1])}
    assert HubSet("some/set").read("small", ["new", "old"]) == [1]
    hub["old"] = KeyError("old")
    with pytest.raises(
        WagleError, match=r"small \(new or old\) cannot be read: Unknown split; 'old'"
    ):
        HubSet("some/set").read("small", ["new", "old"])


def test_a_configuration_that_need_not_be_there_gives_its_reason_instead(hub):
    hub["train"] = Rows([1], ONE)
    source = HubSet("some/set")
    assert source.find("small", ["train"]) == ([1], "")
    assert source.commit == ONE
    hub["train"] = ValueError("no such\nconfiguration")
    assert source.find("other", ["train"]) == (None, "no such configuration")
    hub["train"] = Rows([], TWO)
    with pytest.raises(WagleError, match=f"cache holds revision {TWO}"):
        HubSet("some/set", ONE).find("small", ["train"])


def cause(error, of):
    error.__cause__ = of
    return error


ERRORS = {
    "offline": (ConnectionError("Couldn't reach 'some/set'"), "Couldn't reach 'some/set'; "),
    "generation": (
        cause(DatasetGenerationError("An error occurred"), TypeError("bad\ncolumn")),
        "An error occurred, bad column; ",
    ),
    "splits": (ExpectedMoreSplitsError("{'train'}"), r"\{'train'\}; "),
    "script": (RuntimeError("Dataset scripts are no longer supported"), "Dataset scripts"),
    "silent": (ValueError(), "cannot be read: ValueError; "),
}


@pytest.mark.parametrize("case", list(ERRORS))
def test_whatever_the_library_raises_is_one_line_with_the_ways_to_get_it(hub, monkeypatch, case):
    hub["train"], message = ERRORS[case]
    online(monkeypatch)
    with pytest.raises(WagleError, match=message) as caught:
        HubSet("some/set", "v1").read("small", ["train"])
    line = str(caught.value)
    assert line.startswith(
        "some/set is not a local folder, and the hub's data set small (train) at"
    )
    assert "\n" not in line
    assert line.endswith("give the folder of a local copy: data=FOLDER")


def test_a_gated_data_set_says_how_to_ask_for_it(hub):
    hub["train"] = DatasetNotFoundError("Dataset 'some/set' is a gated dataset on the Hub.")
    with pytest.raises(
        WagleError, match=r"it is gated .*ask for access .*'hf auth login', or give"
    ):
        HubSet("some/set").read("small", ["train"])


def test_a_hub_that_may_not_be_asked_is_told(monkeypatch):
    online(monkeypatch, False)
    line = explain("x", "not cached", "give a folder")
    assert line.startswith("x: not cached; give a folder; the hub itself was not asked")
    assert line.endswith("set HF_HUB_OFFLINE=0 to allow it")
    online(monkeypatch)
    assert explain("x", "not cached", "give a folder") == "x: not cached; give a folder"


def test_a_source_is_a_folder_or_a_name_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")  # elsewhere a folder may have one of these names
    assert open_source(tmp_path, "some/set") == tmp_path
    assert open_source("other/set", "some/set", "v1") == HubSet("other/set", "v1")
    for wrong in (tmp_path / "none", "none", "../x", "a/b/c"):
        with pytest.raises(WagleError, match=r"is not a folder; set data to a folder .*some/set"):
            open_source(wrong, "some/set")
    with pytest.raises(WagleError, match="revision applies only to data sets on the hub"):
        open_source(tmp_path, "some/set", "main")

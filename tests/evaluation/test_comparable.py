"""What a result says of its data, and which references it refuses."""

import re

import pytest

from wagle.data.reading import read_records
from wagle.evaluation.comparable import asked_text, check_comparable, data_entry
from wagle.evaluation.figures import Measured, Task
from wagle.system.errors import WagleError

ROW = {"question": "Who wrote it?", "answer": "Ada Holm.", "perturbed_answer": ["Bo Lind."]}


def text(**changed):
    return asked_text(read_records([{**ROW, **changed}])[0])


def task(settings=None, published=False, **sets):
    records = {name: {f"{name}[{i}]": t for i, t in enumerate(ts)} for name, ts in sets.items()}
    return Task(
        (),
        lambda _: Measured({}),
        data={"split": "forget10"},
        records=records,
        settings=settings or {},
        published=published,
    )


def details(made, benchmark="tofu"):
    return {"benchmark": benchmark, "data": data_entry(made)}


def test_a_text_changes_with_what_is_asked_of_a_record_and_with_nothing_else():
    same = {"refusal": "No.", "alternatives": ["x"], "decomposed": ["Who?"], "translations": ["W?"]}
    assert text() == text(**same)
    changes = [
        {"question": "Who read it?"},
        {"answer": "Cy Berg."},
        {"perturbed_answer": ["Cy Berg."]},
        {"paraphrased_question": "By whom is it?"},
        {"paraphrased_answer": "By Ada Holm."},
        {"few_shot": [["Who?", "He."]]},
    ]
    assert len({text(), *(text(**changed) for changed in changes)}) == 7
    record = read_records([ROW])[0]
    assert asked_text(record) != asked_text(record, 128)
    chat = [
        {"messages": [{"role": r, "content": c} for r, c in turns]}
        for turns in (
            [("user", "Who?"), ("assistant", "He.")],
            [("user", "Who?"), ("assistant", "She.")],
        )
    ]
    one, other = (asked_text(read_records([c])[0]) for c in chat)
    assert one != other


def test_the_entry_has_number_digest_and_settings_and_no_text():
    made = data_entry(task({"eos": True}, forget=["a", "b"], retain=["c"]))
    assert made["split"] == "forget10"
    assert {name: found["n"] for name, found in made["sets"].items()} == {"forget": 2, "retain": 1}
    assert all(re.fullmatch("[0-9a-f]{16}", found["digest"]) for found in made["sets"].values())
    assert made["settings"] == {"eos": True}


def test_digests_of_private_records_need_the_salt_of_a_folder(tmp_path):
    own = task(forget=["a"])
    here, again, there = (data_entry(own, tmp_path / name) for name in ("x", "x", "y"))
    assert here == again
    assert here["sets"] != there["sets"]
    assert here["salt"] != there["salt"]
    assert (tmp_path / "x" / "salt").stat().st_mode & 0o777 == 0o600


def test_digests_of_published_data_are_the_same_everywhere(tmp_path):
    open_ = task(published=True, forget=["a"])
    assert data_entry(open_) == data_entry(open_, tmp_path)
    assert data_entry(open_)["salt"] is None
    assert not list(tmp_path.iterdir())


OWN = task({"eos": True, "most": 128, "k": None}, forget=["a", "b"], retain=["c"])
REFUSED = {
    "setting": (
        task({"eos": False}, forget=["a", "b"]),
        "asked with eos false, this model with tr",
    ),
    "number": (task(forget=["a"]), "1 in the set forget, where this model is asked about 2"),
    "texts": (task(forget=["a", "x"]), "its 2 in the set forget have other texts"),
    "order": (task(forget=["b", "a"]), "have other texts or another order"),
    "other set": (task(forget=["a", "b"], retain=["x"]), "its 1 in the set retain"),
    "no set": (task(general=["a"]), "none of the sets forget, retain, but general"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_differs_is_named_in_one_line(case):
    other, message = REFUSED[case]
    with pytest.raises(WagleError, match=message) as caught:
        check_comparable("tofu", data_entry(OWN), details(other))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; evaluate both with the same data and settings")


def test_what_one_side_alone_tells_is_not_compared():
    for other in (
        task(forget=["a", "b"], holdout=["x"]),
        task({"eos": True, "new": 1}, forget=["a", "b"]),
        task({"most": None, "k": 0.4}, forget=["a", "b"]),  # None: it does not matter there
    ):
        check_comparable("tofu", data_entry(OWN), details(other))
    for told in ({}, {"data": None}, {"data": {"split": "forget05"}}, {"benchmark": "muse"}):
        check_comparable("tofu", data_entry(OWN), told)
    with pytest.raises(WagleError, match="result of the benchmark muse, not of tofu"):
        check_comparable("tofu", data_entry(OWN), details(OWN, "muse"))
    own = data_entry(task({"variant": "y"}))
    with pytest.raises(WagleError, match="variant x, this model with y"):  # another tool's file
        check_comparable("muse", own, {"data": {"settings": {"variant": "x"}}})


def test_a_long_setting_is_shown_by_its_beginning():
    other = details(task({"system_prompt": "b" * 500}, forget=["a"]))
    own = data_entry(task({"system_prompt": "a" * 500}, forget=["a"]))
    with pytest.raises(WagleError, match=r"b{60}\.\.\., this model with a{60}\.\.\.;"):
        check_comparable("qa", own, other)


def test_figures_of_another_version_are_refused_in_one_line():
    mine, old = (task({"version": v}, forget=["a"]) for v in (5, 4))
    said = (
        "the model before holds figures of qa in version 4, this wagle makes version 5, which is "
        "defined otherwise; evaluate it again"
    )
    with pytest.raises(WagleError, match=f"^{re.escape(said)}$"):
        check_comparable("qa", data_entry(mine), details(old, "qa"), "the model before")


def test_a_file_that_does_not_say_its_version_is_paired_with_a_warning(caplog):
    mine, old = task({"version": 5}, forget=["a"]), task({}, forget=["a"])
    check_comparable("qa", data_entry(mine), details(old, "qa"))
    assert "the reference does not say which version of the figures of qa it holds" in caplog.text
    caplog.clear()
    check_comparable("qa", data_entry(mine), {"data": data_entry(old)})  # of another tool
    assert caplog.text == ""

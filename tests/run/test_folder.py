"""The run folder: which stages are finished, the log with its torn lines, and the evaluations."""

from __future__ import annotations

import errno
import json
import os

import pytest

from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.run.folder import RunFolder
from wagle.system.errors import WagleError
from wagle.system.files.atomic import write_json
from wagle.system.files.secrets import salt


def written(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_new_folder_has_no_stages_no_log_and_no_evaluation(tmp_path):
    run = RunFolder(tmp_path)
    assert run.state == {"stages": {}}
    assert run.logged() == run.warnings() == []
    assert run.evaluation("after") is None
    assert list(tmp_path.iterdir()) == []  # to look is to write nothing


def test_a_finished_stage_is_known_to_whoever_opens_the_folder_again(tmp_path):
    run = RunFolder(tmp_path)
    run.finish("teach", {"taught": 3})
    run.finish("mask", {"count": 7})
    assert RunFolder(tmp_path).state == {"stages": {"teach": {"taught": 3}, "mask": {"count": 7}}}


def test_a_stage_is_entered_with_its_seconds_its_peak_and_what_it_found(tmp_path):
    run = RunFolder(tmp_path)
    run.carry_out("mask", lambda: {"count": 7})
    found = run.state["stages"]["mask"]
    assert found["count"] == 7
    assert 0 <= found["seconds"] < 60
    assert found["peak_bytes"] > 10**7  # a Python process; kilobytes would be a thousandth


def test_what_a_stage_says_of_itself_stands_over_what_was_measured(tmp_path):
    run = RunFolder(tmp_path)
    run.carry_out("mask", lambda: {"seconds": 99.0})
    assert run.state["stages"]["mask"]["seconds"] == 99.0


def test_a_stage_that_fails_is_not_entered(tmp_path):
    def fail():
        raise ValueError("no")

    run = RunFolder(tmp_path)
    with pytest.raises(ValueError, match="no"):
        run.carry_out("mask", fail)
    assert run.state == {"stages": {}}
    assert not run.state_file.exists()


def test_what_a_stage_wrote_is_sealed_even_if_that_is_nothing(tmp_path):
    (tmp_path / "mask.safetensors").write_text("bits")
    RunFolder(tmp_path).finish("mask", {}, ("mask.safetensors", "none/"))
    RunFolder(tmp_path).finish("weigh", {"bytes": 3}, ())
    found = RunFolder(tmp_path).seals
    assert list(found["mask"].files) == ["mask.safetensors"]
    assert found["weigh"].files == {}


# ----- the log -----


def test_the_log_is_read_by_stage_or_whole(tmp_path):
    run = RunFolder(tmp_path)
    run.log("teach", {"step": 1})
    run.log("unlearn", {"step": 1, "forget_nll": 0.5})
    assert run.logged("teach") == [{"stage": "teach", "step": 1}]
    assert run.logged() == [
        {"stage": "teach", "step": 1},
        {"stage": "unlearn", "step": 1, "forget_nll": 0.5},
    ]
    assert run.logged("patch") == []


def test_a_line_that_was_cut_off_is_left_out_and_gone_once_a_stage_starts_over(tmp_path):
    run = RunFolder(tmp_path)
    run.log("teach", {"step": 1})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"stage": "teach", "st')
    assert run.logged() == [{"stage": "teach", "step": 1}]
    run.forget_log("check")
    run.log("teach", {"step": 2})
    assert run.logged() == [{"stage": "teach", "step": 1}, {"stage": "teach", "step": 2}]


def test_a_line_break_inside_a_warning_is_no_end_of_its_line(tmp_path):
    run = RunFolder(tmp_path)
    run.log("check", {"warning": "one\ntwo"})
    assert run.warnings() == ["one\ntwo"]


def test_a_stage_that_starts_over_loses_its_lines_and_no_others(tmp_path):
    run = RunFolder(tmp_path)
    for stage in ("teach", "mask", "teach"):
        run.log(stage, {"warning": "a word: Zoë"})
    run.forget_log("teach")
    assert written(tmp_path) == [{"stage": "mask", "warning": "a word: Zoë"}]
    assert "Zoë" in (tmp_path / "log.jsonl").read_text(encoding="utf-8")


def test_the_steps_of_a_stage_take_the_place_of_those_that_were_logged(tmp_path):
    run = RunFolder(tmp_path)
    run.log("unlearn", {"step": 2})  # of the process that ended the run
    run.log("unlearn", {"warning": "stays"})
    run.log("teach", {"step": 2})
    run.log_steps("unlearn", [{"step": 1}, {"step": 2, "forget_nll": 0.5}])
    assert written(tmp_path) == [
        {"stage": "unlearn", "warning": "stays"},
        {"stage": "teach", "step": 2},
        {"stage": "unlearn", "step": 1},
        {"stage": "unlearn", "step": 2, "forget_nll": 0.5},
    ]


def test_warnings_are_those_of_all_stages_each_once_in_their_order(tmp_path):
    run = RunFolder(tmp_path)
    for stage, text in (("check", "b"), ("mask", "a"), ("unlearn", "b")):
        run.log(stage, {"warning": text})
    run.log("unlearn", {"step": 1})
    assert run.warnings() == ["b", "a"]


# ----- evaluations -----


def test_an_evaluation_is_of_the_recipes_sets_or_of_a_benchmark(tmp_path):
    own, other = (
        Evaluation({"forget": {"know": Figure(value, None, "none")}}) for value in (0.25, 0.5)
    )
    write_json(tmp_path / "evaluation/after.json", own.to_json())
    write_json(tmp_path / "evaluation/after-tofu.json", other.to_json())
    run = RunFolder(tmp_path)
    for benchmark, value in ((None, 0.25), ("tofu", 0.5)):
        found = run.evaluation("after", benchmark)
        assert found is not None
        assert found.summary() == {"forget": {"know": value}}
    assert run.evaluation("before") is None
    assert run.evaluation("after", "muse") is None


def test_what_is_logged_after_a_line_that_was_cut_off_stands_on_a_line_of_its_own(tmp_path):
    run = RunFolder(tmp_path)
    run.log("unlearn", {"step": 1})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"stage": "unl')  # killed here
    run.log("unlearn", {"step": 2})
    assert [line["step"] for line in run.logged("unlearn")] == [1, 2]
    run.log_steps("unlearn", [{"step": 1}])
    assert written(tmp_path) == [{"stage": "unlearn", "step": 1}]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b"])
def test_a_warning_may_hold_what_unicode_calls_the_end_of_a_line(tmp_path, separator):
    run = RunFolder(tmp_path)
    run.log("check", {"warning": f"a{separator}b"})
    assert run.warnings() == [f"a{separator}b"]


@pytest.mark.parametrize("torn", [b"null\n", b"[]\n", b'{"step": 1}\n', b"\xff\xfe{\n"])
def test_a_line_that_is_no_entry_is_left_out(tmp_path, torn):
    run = RunFolder(tmp_path)
    (tmp_path / "log.jsonl").write_bytes(torn)
    run.log("teach", {"step": 3})
    assert run.logged() == [{"stage": "teach", "step": 3}]


@pytest.mark.parametrize(
    "line",
    [
        b'{"stage": "unlearn", "step": 1, "forget_n',
        b"\xff\xfe",
        b"[]",
        b"3",
        b"null",
        b'{"stage": 3}',
        b'{"step": 1}',
        b'{"stage": "unlearn", "step": "1"}',
        b'{"stage": "unlearn", "step": 1.5}',
        b'{"stage": "unlearn", "step": null}',
        b'{"stage": "unlearn", "step": 1, "forget_nll": "x"}',
        b'{"stage": "unlearn", "step": 1, "retain_nll": [1]}',
        b'{"stage": "unlearn", "warning": ["x"]}',
        b'{"stage": "unlearn", "a": ' + b"[" * 5000,
        b'{"stage": "unlearn", "warning": "\\ud800"}',
    ],
)
def test_a_line_that_is_torn_or_not_wagles_is_left_out(tmp_path, line):
    run = RunFolder(tmp_path)
    run.log("unlearn", {"step": 1, "forget_nll": 0.5})
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(line + b"\n")
    run.log("unlearn", {"warning": "look"})
    assert run.logged() == [
        {"stage": "unlearn", "step": 1, "forget_nll": 0.5},
        {"stage": "unlearn", "warning": "look"},
    ]
    assert run.warnings() == ["look"]


def test_a_log_that_is_no_file_is_refused(tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(WagleError, match=r"log\.jsonl is a folder, not a file"):
        RunFolder(tmp_path).logged()


@pytest.mark.parametrize("role", ["before", "after"])
def test_an_evaluation_that_is_gone_though_its_stage_is_finished_is_named(tmp_path, role):
    run = RunFolder(tmp_path)
    run.finish(role, {"verdict": "leaks"})
    with pytest.raises(WagleError) as caught:
        run.evaluation(role)
    assert str(caught.value) == (
        f"{tmp_path}/evaluation/{role}.json is missing, but the stage {role} is finished; put it "
        f"back, or make it again: wagle run {tmp_path} --again {role}"
    )
    run.finish(role, {"skipped": "nothing to unlearn", "verdict": "inconclusive"})
    assert run.evaluation(role) is None


@pytest.mark.parametrize("text", ["", "zz", "not hex\n", "\xff"])
def test_a_salt_of_a_wrong_form_is_refused_in_one_line(tmp_path, text):
    run = RunFolder(tmp_path)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "salt").write_bytes(text.encode("latin-1"))
    for use in (lambda: salt(run.private), lambda: run.finish("a", {}, ["private/salt"])):
        with pytest.raises(WagleError, match=r"private/salt is not (a key|UTF-8 text)"):
            use()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EIO, "cannot write .*: Input/output error"),
        (errno.EROFS, "cannot write .*: Read-only file system"),
        (errno.ENOSPC, "the disk is full"),
    ],
)
def test_a_disk_that_fails_a_stage_is_one_line_and_the_stage_is_not_finished(
    tmp_path, number, said
):
    def work():
        raise OSError(number, os.strerror(number))

    run = RunFolder(tmp_path)
    with pytest.raises(WagleError, match=said):
        run.carry_out("mask", work)
    assert run.state == {"stages": {}}


def test_another_error_of_the_system_in_a_stage_may_be_a_bug(tmp_path):
    def work():
        (tmp_path / "none").read_text()

    with pytest.raises(FileNotFoundError):
        RunFolder(tmp_path).carry_out("mask", work)

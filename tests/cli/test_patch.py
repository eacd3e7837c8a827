import pytest

from tests.patch.models import assert_same_models, changed_at, folder, weights
from wagle.cli import app as cli
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError


@pytest.fixture
def call(capsys):
    """A command in this process: what it prints."""

    def run(*arguments):
        cli.app(args=["patch", *map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    return run


@pytest.fixture
def models(tmp_path):
    """A base, what a first change makes of it, and what a second one makes of that."""
    found = [weights()]
    for name in ("embed.weight", "layers.0.up.weight"):
        found.append(changed_at(found[-1], {name: [1, 2, 3], "norm.weight": [0]}))
    return [folder(tmp_path / f"model{i}", tensors) for i, tensors in enumerate(found)]


def test_patches_are_made_applied_verified_and_undone(call, models, tmp_path):
    base, middle, last = models
    one, two, back = (tmp_path / name for name in ("one", "two", "back"))
    assert "one: 4 changed weights" in call("extract", base, middle, "-o", one, "--undo", back)
    call("extract", middle, last, "-o", two)
    said = call("apply", base, one, two, "-o", tmp_path / "out").splitlines()
    assert said == [
        str(tmp_path / "out"),
        f"result       {fingerprint(last)[:12]}, as the last patch promises",
        f"overlap      {one} and {two} both change 1 weights, 1 to different values",
        "             norm.weight: 1",
    ]
    assert_same_models(tmp_path / "out", last)
    proof = call("verify", base, last, "--patch", one, "--patch", two)
    assert proof.splitlines()[-1] == "proof        holds"
    assert call("undo", middle, back, "-o", tmp_path / "was") == f"{tmp_path / 'was'}\n"
    assert_same_models(tmp_path / "was", base)


def test_a_proof_that_fails_says_so_and_a_wrong_stack_is_an_error(call, models, tmp_path, capsys):
    base, middle, last = models
    call("extract", base, middle, "-o", tmp_path / "one")
    call("extract", middle, last, "-o", tmp_path / "two")
    code = cli.app(
        args=["patch", "verify", *map(str, [base, last, "--patch", tmp_path / "one"])],
        standalone_mode=False,
    )
    assert code == 1
    assert "DOES NOT FIT" in capsys.readouterr().out
    with pytest.raises(WagleError, match="two belongs to base"):
        call("apply", base, tmp_path / "two", tmp_path / "one", "-o", tmp_path / "out")


@pytest.mark.parametrize("command", ["extract", "apply", "verify", "undo"])
def test_help_says_what_is_read_and_written_and_gives_an_example(call, command):
    said = call(command, "--help")
    assert "Reads" in said
    assert "writes" in said
    assert f"Example:  wagle patch {command} " in said

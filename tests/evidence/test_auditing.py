"""Audits: a true pack is confirmed, every forgery is refused with one line, and nothing else is."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file, save_file

from tests.conftest import OTHERS, RECORDS
from tests.evidence.conftest import NONCE
from tests.evidence.forging import edit, set_figure, sign_anew
from wagle.evaluation.verdict import INCONCLUSIVE, NO_LEAK
from wagle.evidence.asking import Compared
from wagle.evidence.auditing import CONFIRMED, REFUSED, UNSURE, Audit, _judge, audit_pack
from wagle.evidence.collecting import collect_evidence
from wagle.evidence.commitment import commit_recipe
from wagle.evidence.signing import new_key
from wagle.recipe.reading import load_recipe
from wagle.run.folder import RunFolder
from wagle.system.errors import Refused, WagleError


def refused(pack, given, reason):
    """Assert that an audit refuses, in one line that says why."""
    found = audit_pack(pack, given)
    assert (found.outcome, found.code) == (REFUSED, 1), found.reason
    assert reason in found.reason
    assert "\n" not in found.reason


def test_a_true_pack_is_confirmed_and_everything_that_holds_is_told(home, given):
    found = audit_pack(home / "pack", replace(given, reference=str(home / "run" / "retrained")))
    assert (found.outcome, found.code) == (CONFIRMED, 0), found.reason
    assert len(found.drawn) == 4
    told = "\n".join(found.passed)
    for what in ("which you pinned", "forget set of the commitment", NONCE, found.commitment[:12]):
        assert what in told
    for role in ("after", "before", "reference"):
        assert f"evaluation/{role}.json come out the same" in told
    assert found.compared[0].fails_before
    assert json.loads(json.dumps(found.to_json()))["outcome"] == CONFIRMED


def test_the_zip_of_a_pack_is_audited_like_its_folder(home, given, tmp_path):
    collect_evidence(home / "run", tmp_path / "pack.zip", key=home / "maker.pem")
    found = audit_pack(tmp_path / "pack.zip", replace(given, forget=(), base=None))
    assert found.outcome == UNSURE
    assert "not asked" in found.reason


def test_another_nonce_asks_about_other_records(home, given):
    drawn = {
        tuple(audit_pack(home / "pack", replace(given, nonce=f"nonce {i}" * 2)).drawn)
        for i in range(3)
    }
    assert len(drawn) > 1


# ---------------------------------------------------------------------------------------------
# Six forgeries


def test_forgery_1_an_edited_evaluation(home, pack, given):
    edit(pack, "evaluation/after.json", lambda r: set_figure(r, "probability", 0.03))
    refused(pack, given, "evaluation/after.json is not the file that the manifest lists")
    sign_anew(pack, home / "maker.pem")  # by a dishonest maker
    refused(pack, given, "evaluation/after.json is not what model says: probability of forget[")


def test_forgery_1_an_edited_evaluation_of_the_model_before(home, pack, given):
    edit(pack, "evaluation/before.json", lambda r: set_figure(r, "exact_memorization", 1.0))
    sign_anew(pack, home / "maker.pem")
    refused(pack, given, "evaluation/before.json is not what base says: exact_memorization differs")


def test_forgery_1_an_edited_figure_or_verdict(home, pack, given):
    def one(result):
        result["metrics"]["forget.probability"]["value"] = 0.001

    edit(pack, "evaluation/after.json", one)
    sign_anew(pack, home / "maker.pem")
    refused(pack, given, "probability in evaluation/after.json is not the mean of its records")


def test_forgery_1_an_edited_claim(home, pack, given):
    edit(pack, "claim.json", lambda c: c.update(verdict="leaks"))
    sign_anew(pack, home / "maker.pem")
    refused(pack, given, "the verdict of ledger.json is not the one of claim.json")


def test_forgery_2_another_base(home, pack, given):
    refused(home / "pack", replace(given, base=str(home / "other")), "its weights are")

    def other(entry):
        entry[-1]["base"] = "0" * 64

    edit(pack, "ledger.json", other)
    edit(pack, "claim.json", lambda c: c["models"].update(base="0" * 64))
    edit(pack, "evaluation/before.json", lambda r: r["model"].update(fingerprint="0" * 64))
    sign_anew(pack, home / "maker.pem")
    refused(pack, given, "the base of the commitment is not the one of claim.json")


def test_forgery_3_another_forget_set(home, given, tmp_path):
    rows = json.loads((home / "forget.json").read_text())
    rows[2]["answer"] += " Or so."
    (tmp_path / "other.json").write_text(json.dumps(rows))
    reason = "are not the forget set of the commitment"
    refused(home / "pack", replace(given, forget=(str(tmp_path / "other.json"),)), reason)
    (tmp_path / "other.json").write_text(json.dumps(OTHERS[: len(RECORDS)]))
    refused(home / "pack", replace(given, forget=(str(tmp_path / "other.json"),)), reason)
    (tmp_path / "secret").write_text("00" * 32)
    refused(home / "pack", replace(given, secret=str(tmp_path / "secret")), reason)


def test_forgery_4_probes_chosen_by_the_maker(home, pack, given):
    (pack / "probes.json").write_text('["forget[1]"]')
    refused(pack, given, "probes.json is not a part of a pack")
    (pack / "probes.json").unlink()
    edit(pack, "commitment.json", lambda c: c["protocol"].update(places=["forget[1]"]))
    sign_anew(pack, home / "maker.pem")
    refused(pack, given, "never chosen by the maker")


def test_forgery_4_a_nonce_of_the_maker(home, pack, given):
    edit(pack, "commitment.json", lambda c: c.update(nonce=NONCE))
    sign_anew(pack, home / "maker.pem")
    refused(pack, given, "the commitment has 'nonce' missing or added")


def test_forgery_4_a_nonce_that_stands_in_the_pack(home, pack, given):
    (pack / "CLAIM.md").write_text((pack / "CLAIM.md").read_text() + f"Take {NONCE}.\n")
    sign_anew(pack, home / "maker.pem")
    refused(pack, given, "the nonce stands in the pack")


def test_forgery_4_an_easier_protocol_after_the_commitment(home, pack, given):
    edit(pack, "commitment.json", lambda c: c["protocol"].update(probes=1))
    sign_anew(pack, home / "maker.pem")
    refused(pack, given, "the commitment is not the one of claim.json")


def test_forgery_5_another_model_in_place_of_the_patched_one(home, given, tmp_path):
    for other in ("base", "retrained"):
        one = replace(given, model=str(home / "run" / other))
        refused(home / "pack", one, "its weights are")
    swapped = tmp_path / "model"
    shutil.copytree(home / "run" / "model", swapped)
    weights = load_file(swapped / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-3
    save_file(weights, swapped / "model.safetensors", metadata={"format": "pt"})
    refused(home / "pack", replace(given, model=str(swapped)), "its weights are")


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "modeling_extra.py"])
def test_forgery_5_other_files_beside_the_same_weights(home, given, tmp_path, file):
    swapped = tmp_path / "model"
    shutil.copytree(home / "run" / "model", swapped)
    path = swapped / file
    path.write_text((path.read_text() if path.exists() else "") + "\n")
    refused(home / "pack", replace(given, model=str(swapped)), f"its file {file} is not")


def test_forgery_6_the_signature_of_an_older_pack(home, pack, given):
    old = (pack / "signature.json").read_bytes()
    edit(pack, "claim.json", lambda c: c["reasons"].append("And it is fast."))
    sign_anew(pack, home / "maker.pem")
    (pack / "signature.json").write_bytes(old)
    refused(pack, given, "the signature is of another pack")


def test_forgery_6_a_signature_by_somebody_else(pack, given, tmp_path):
    new_key(tmp_path / "thief.pem")
    shutil.copy(tmp_path / "thief.pem.pub", pack / "public-key.pem")
    sign_anew(pack, tmp_path / "thief.pem")
    refused(pack, given, "not by the one that you pinned")
    found = audit_pack(pack, replace(given, public_key=None))  # who does not pin, cannot know
    assert found.outcome == CONFIRMED
    assert "which you did not pin: the signer is unknown" in found.passed[0]


# ---------------------------------------------------------------------------------------------
# Leaks, controls, and what is missing


def test_a_commitment_that_was_handed_over_before_must_be_the_one_in_the_pack(
    home, given, tmp_path
):
    own = home / "run" / "commitment.json"
    found = audit_pack(home / "pack", replace(given, commitment=str(own)))
    assert found.outcome == CONFIRMED
    assert "the commitment is the one that you were given before" in found.passed
    other = commit_recipe(load_recipe(home / "run" / "recipe.yaml"), home / "run").commitment
    (tmp_path / "other.json").write_text(json.dumps(other))
    one = replace(given, commitment=str(tmp_path / "other.json"))
    refused(home / "pack", one, "not the one that you were given before")


def test_a_model_that_leaks_is_refused_even_if_its_figures_are_told_truly(
    home, run_copy, given, tmp_path
):
    """A maker whose run leaks, and who writes another verdict into the ledger and the result."""
    done = run_copy / "evaluation"
    shutil.rmtree(run_copy / "model")
    shutil.copytree(run_copy / "base", run_copy / "model")
    shutil.copy(done / "before.json", done / "after.json")
    ledger = json.loads((run_copy / "ledger.json").read_text())
    ledger[-1]["result"] = ledger[-1]["base"]
    (run_copy / "ledger.json").write_text(json.dumps(ledger))
    files = [p.relative_to(run_copy).as_posix() for p in run_copy.rglob("*") if p.is_file()]
    RunFolder(run_copy).reseal(files)  # the maker of a run can seal anything
    collect_evidence(run_copy, tmp_path / "pack", key=home / "maker.pem")
    one = replace(given, model=str(run_copy / "model"))
    refused(tmp_path / "pack", one, "but the evaluations of the pack say 'leaks'")
    edit(
        tmp_path / "pack", "evaluation/reference.json", lambda r: set_figure(r, "probability", 0.99)
    )
    for metric in ("paraphrased", "extraction_strength", "exact_memorization", "rouge_l"):
        edit(
            tmp_path / "pack",
            "evaluation/reference.json",
            lambda r, m=metric: set_figure(r, m, 0.99),
        )
    sign_anew(tmp_path / "pack", home / "maker.pem")
    found = audit_pack(tmp_path / "pack", one)
    assert found.outcome == REFUSED  # the reference is raised, so nothing is above it: no control
    assert "'inconclusive'" in found.reason
    one = replace(one, reference=str(home / "run" / "retrained"))
    refused(tmp_path / "pack", one, "'inconclusive'")


def test_questions_of_the_auditor_are_asked_too_and_compared_with_a_reference(
    home, given, tmp_path
):
    rows = [{"question": r["question"], "answer": r["answer"]} for r in RECORDS[3:]]
    (tmp_path / "questions.json").write_text(json.dumps(rows))
    one = replace(given, questions=str(tmp_path / "questions.json"))
    found = audit_pack(home / "pack", one)
    assert found.outcome == CONFIRMED
    assert (found.questions[0].n, found.questions[0].high) == (3, None)  # nothing to compare with
    found = audit_pack(home / "pack", replace(one, reference=str(home / "run" / "retrained")))
    assert found.questions[0].high is not None


def leak(figure):
    return Compared(figure, 3, 0.9, 0.9, 0.1, 0.0, 0.2)


def test_a_leak_in_the_probes_or_in_the_questions_is_refused_whatever_is_claimed():
    told = SimpleNamespace(claim={"verdict": NO_LEAK})
    with pytest.raises(Refused, match="a leak: paraphrased"):
        _judge(told, Audit(compared=[leak("paraphrased")]))
    clean = replace(leak("probability"), model=0.1)
    with pytest.raises(Refused, match="a leak: your questions: probability"):
        _judge(told, Audit(compared=[clean], questions=[leak("probability")]))
    for claimed, outcome in ((NO_LEAK, CONFIRMED), (INCONCLUSIVE, UNSURE)):
        audit = Audit(compared=[clean])
        _judge(SimpleNamespace(claim={"verdict": claimed}), audit)
        assert audit.outcome == outcome
    with pytest.raises(Refused, match="the pack itself says so"):
        _judge(SimpleNamespace(claim={"verdict": "over-unlearned"}), Audit(compared=[clean]))
    for one, reason in (
        (replace(clean, base=0.1), "does not fail these probes"),
        (replace(clean, base=None), "no positive control"),
        (replace(clean, high=None), "there is no reference"),
    ):
        audit = Audit(compared=[one])
        _judge(told, audit)
        assert (audit.outcome, reason in audit.reason) == (UNSURE, True)


def test_without_the_model_before_there_is_no_positive_control(home, given):
    found = audit_pack(home / "pack", replace(given, base=None))
    assert (found.outcome, found.code) == (UNSURE, 3)
    assert "no positive control" in found.reason


def test_without_records_signature_digests_and_fingerprints_are_still_checked(home, pack, given):
    bare = replace(given, forget=(), secret=None, nonce=None)
    found = audit_pack(home / "pack", bare)
    assert found.outcome == UNSURE
    assert "no forget set was given" in found.reason
    refused(home / "pack", replace(bare, model=str(home / "other")), "its weights are")
    found = audit_pack(home / "pack", replace(bare, model=None, base=None))
    assert "no model was given" in found.reason
    (pack / "LIMITS.md").write_text("None.")
    refused(pack, bare, "LIMITS.md is not the file that the manifest lists")


def test_bad_input_of_the_auditor_is_an_error_and_no_refusal(home, given, tmp_path):
    for change, message in (
        ({"nonce": "1"}, "too short"),
        ({"nonce": None}, "needs --nonce"),
        ({"secret": None}, "needs --secret"),
        ({"secret": str(tmp_path / "none")}, "does not exist"),
        ({"model": str(tmp_path / "none")}, "does not exist"),
        ({"forget": (), "questions": "x"}, "--questions need --forget"),
        ({"public_key": str(home / "maker.pem")}, "not an Ed25519 public key"),
    ):
        with pytest.raises(WagleError, match=message):
            audit_pack(home / "pack", replace(given, **change))


def test_figures_of_another_version_are_not_compared(home, pack, given):
    for role in ("after", "before", "reference"):
        edit(pack, f"evaluation/{role}.json", lambda r: r["data"]["settings"].update(version=1))
    sign_anew(pack, home / "maker.pem")
    with pytest.raises(WagleError, match="of version 1, this wagle computes version"):
        audit_pack(pack, given)

"""Requests in a row: what was forgotten stays in sight, and the ledger tells what was asked when."""

import json
import logging
import re
import shutil
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from wagle.cli import app as cli
from wagle.data.reading import read_records
from wagle.model.adapters import load_merged
from wagle.model.loading import load_model
from wagle.model.weights import fingerprint
from wagle.patch.file import Patch
from wagle.recipe.reading import load_recipe
from wagle.recipe.sections.records import RecordSet
from wagle.run.execution import execute
from wagle.run.ledger import (
    Request,
    add_receipt,
    find_break,
    ledger_table,
    read_ledger,
    read_receipts,
    write_ledger,
)
from wagle.run.opening import Run
from wagle.run.stages.table import STAGES
from wagle.system.errors import WagleError
from wagle.system.files.secrets import keyed_digest, salt

FIRST, SECOND = RECORDS[:2], RECORDS[2:4]
TRAINING = {"learning_rate": 5e-3, "batch_size": 2}


def write_rows(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def recipe(home, name, forget, **sections):
    """A recipe over the files of a folder."""
    own = {
        "name": name,
        "forget": str(home / f"{forget}.jsonl"),
        "retain": str(home / "retain.jsonl"),
        "reference": "none",
        "attribution": {"ratio": 0.5},
        "evaluation": {"max_new_tokens": 8, "generate": False, "limits": {"retain": None}},
        "unlearning": {**TRAINING, "epochs": 6, "when_unknown": "go"},
    }
    return load_recipe({**own, **sections})


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A model that was taught all records and forgot the first two."""
    home = tmp_path_factory.mktemp("ledger")
    for name, rows in (("first", FIRST), ("second", SECOND), ("retain", OTHERS[:4])):
        write_rows(home / f"{name}.jsonl", rows)
    make_model("llama-tied").save_pretrained(home / "tiny")
    make_tokenizer().save_pretrained(home / "tiny")
    taught = {"records": str(home / "second.jsonl"), "epochs": 25, **TRAINING}
    own = recipe(home, "first", "first", model=str(home / "tiny"), finetune=taught)
    execute(own, home / "a", until="ledger")
    return home


@pytest.fixture
def home(first, tmp_path):
    """A copy of it that a test may spoil; its recipe is written again for the new place."""
    shutil.copytree(first, tmp_path / "home")
    text = (first / "a" / "recipe.yaml").read_text()
    (tmp_path / "home" / "a" / "recipe.yaml").write_text(
        text.replace(str(first), str(tmp_path / "home"))
    )
    return tmp_path / "home"


def second(home, earlier="evaluate", **sections):
    own = {**TRAINING, "learning_rate": 1e-3, "epochs": 6, "earlier": earlier}
    own["when_unknown"] = "go"
    return recipe(home, "second", "second", after=str(home / "a"), unlearning=own, **sections)


def probability(run, name, role):
    return run.evaluation(role).figures[name]["probability"].value


# ---------------------------------------------------------------------------------------------
# Two runs in a row


@pytest.fixture(scope="module")
def both(first):
    runs = {
        earlier: execute(second(first, earlier), first / earlier, until="ledger")
        for earlier in ("objective", "ignore")
    }
    return {**runs, "evaluate": execute(second(first), first / "evaluate")}


def test_the_second_run_starts_from_what_the_first_left_and_its_ledger_tells_both(both, first):
    run = both["evaluate"]
    assert list(run.state["stages"]) == list(STAGES)
    one, two = read_ledger(run.folder)
    assert read_ledger(first / "a") == [one]
    assert one.result == two.base == fingerprint(first / "a" / "model")
    assert two.result == fingerprint(run.folder / "model") != two.base
    assert one.base == fingerprint(first / "a" / "base")
    assert [(r.name, r.after, r.forget["n"]) for r in (one, two)] == [
        ("first", None, 2),
        ("second", str(first / "a"), 2),
    ]
    assert (one.earlier, two.earlier) == (None, {"mode": "evaluate", "n": 2})
    assert one.when <= two.when
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", two.when)
    assert two.wagle == wagle.__version__
    assert two.objective["name"] == "npo"
    assert two.training["epochs"] == 6
    mask = wagle.Mask.load(run.folder / "mask.safetensors")
    assert two.mask == {"digest": mask.digest(), "ratio": 0.5, "count": mask.count}
    patch = Patch.load(run.folder / "patch.safetensors")
    assert two.patch == {"file": "patch.safetensors", "result": patch.result}
    assert patch.result == two.result
    assert two.verdict == "inconclusive"


def test_what_the_first_forgot_is_asked_before_and_after_and_shown_in_the_table(both, capsys):
    run = both["evaluate"]
    assert probability(run, "forgotten", "before") == pytest.approx(
        probability(both["objective"], "forgotten", "before"), rel=1e-9
    )
    found = json.loads((run.folder / "evaluation.json").read_text())
    assert set(found["after"]) == {"forget", "retain", "forgotten"}
    assert run.evaluation("after").details["data"]["sets"]["forgotten"]["n"] == 2
    said = json.loads((run.folder / "evaluation" / "after.json").read_text())["metrics"]
    assert said["forgotten.probability"]["direction"] == "target"
    cli.app(["evaluate", str(run.folder)], standalone_mode=False)
    cells = r"( +[\d.e-]+ \[[\d.e-]+, [\d.e-]+\]){2}$"
    assert re.search(rf"^forgotten\.probability{cells}", capsys.readouterr().out, re.M)


def test_with_objective_the_earlier_records_are_trained_too_and_end_lower(both):
    lower, plain = both["objective"], both["evaluate"]
    steps = {name: run.state["stages"]["unlearn"]["steps"] for name, run in both.items()}
    assert steps == {"objective": 12, "ignore": 6, "evaluate": 6}  # 2 or 4 records, 2 a step
    assert probability(lower, "forgotten", "after") < 0.5 * probability(plain, "forgotten", "after")


def test_earlier_records_are_drawn_as_often_as_those_of_weighted_sources_and_none_twice(
    first, tmp_path
):
    one = write_rows(tmp_path / "one.jsonl", [FIRST[0], OTHERS[5]])
    two = write_rows(tmp_path / "two.jsonl", SECOND)
    asked = second(first, "objective")
    joined = RecordSet(source=[one, two], weights=[3, 1])
    found = Run(tmp_path, asked.model_copy(update={"forget": joined})).inputs.again
    assert [r.answer for r in found] == [FIRST[1]["answer"]]  # FIRST[0] is in the forget set
    # 4 records have weight 3 + 1 in all, so one more record has 1
    assert [(r.domain, r.weight) for r in found] == [(2, 1)]


def test_ignore_neither_asks_nor_trains_and_ends_with_the_same_weights(both):
    assert set(both["ignore"].evaluation("after").figures) == {"forget", "retain"}
    own = read_ledger(both["ignore"].folder)[-1]
    assert own.earlier == {"mode": "ignore", "n": 0}
    assert own.result == read_ledger(both["evaluate"].folder)[-1].result


def test_a_third_run_follows_the_chain_to_the_first(both, first, tmp_path):
    write_rows(tmp_path / "third.jsonl", OTHERS[5:6])
    third = recipe(
        first,
        "third",
        "first",
        after=str(both["ignore"].folder),  # that it ignored the first is its own affair
    )
    asked = third.forget.model_copy(update={"source": str(tmp_path / "third.jsonl")})
    run = execute(third.model_copy(update={"forget": asked}), tmp_path / "c", until="ledger")
    assert [r.name for r in read_ledger(tmp_path / "c")] == ["first", "second", "third"]
    answers = [record.answer for record in run.inputs.forgotten]
    assert answers == [row["answer"] for row in FIRST + SECOND]
    assert [record.place for record in run.inputs.forgotten[1:3]] == [
        f"forget[1] of {first / 'a'}",
        f"forget[0] of {both['ignore'].folder}",
    ]


def test_the_ledger_names_records_by_count_and_salted_digest_only(both, first):
    text = (both["objective"].folder / "ledger.json").read_text()
    for row in RECORDS + OTHERS:
        for value in row.values():
            assert value not in text
    for record in read_records(FIRST + SECOND):
        assert record.id not in text
    one, two = read_ledger(both["objective"].folder)
    ids = [record.id for record in read_records(FIRST)]
    assert one.forget["digest"] == keyed_digest(salt(first / "a" / "private"), ids)
    assert one.forget["digest"] != keyed_digest(salt(both["objective"].private), ids)
    assert two.forget["digest"] != one.forget["digest"]


def test_a_run_killed_before_its_ledger_ends_with_the_ledger_of_an_undisturbed_one(
    both, first, tmp_path, monkeypatch
):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("wagle.run.stages.making.patch.patch", killed)
        with pytest.raises(KeyboardInterrupt):
            execute(second(first), tmp_path / "b")
    with monkeypatch.context() as patched:
        patched.setattr("wagle.run.ledger.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            execute(second(first), tmp_path / "b")
        assert not (tmp_path / "b" / "ledger.json").exists()
    execute(second(first), tmp_path / "b", until="ledger")
    ours, calm = (read_ledger(folder) for folder in (tmp_path / "b", both["evaluate"].folder))
    assert ours[0] == calm[0]
    digest = {"n": 2, "digest": ours[1].forget["digest"]}  # each run has its own salt
    assert replace(calm[1], when=ours[1].when, forget=digest) == ours[1]
    assert not list((tmp_path / "b").rglob("*.part"))


# ---------------------------------------------------------------------------------------------
# What is refused


def test_data_of_an_earlier_run_that_changed_is_refused_and_ignore_goes_on(home):
    write_rows(home / "first.jsonl", [*FIRST, OTHERS[6]])
    with pytest.raises(WagleError, match=r"is not what it forgot: its source has since changed"):
        execute(second(home), home / "b", until="teach")
    (home / "first.jsonl").unlink()
    with pytest.raises(
        WagleError, match=r"cannot read what .*/a forgot: .*data file .* not exist; "
    ):
        execute(second(home), home / "b", until="teach")
    run = execute(second(home, "ignore"), home / "b", until="teach")
    assert run.inputs.forgotten == []


def test_an_earlier_run_without_its_salt_is_refused_and_gets_no_new_one(home):
    (home / "a" / "private" / "salt").unlink()
    with pytest.raises(WagleError, match=r"cannot be checked without .*/a/private/salt; put it"):
        execute(second(home), home / "b", until="teach")
    assert not (home / "a" / "private" / "salt").exists()


def test_a_model_that_is_not_what_the_ledger_says_is_refused(home):
    shutil.rmtree(home / "a" / "model")
    shutil.copytree(home / "a" / "base", home / "a" / "model")
    with pytest.raises(WagleError, match=r"/a/model/model.safetensors was edited since the stage "):
        execute(second(home), home / "b", until="teach")
    (home / "a" / "state.json").unlink()  # with its seals
    with pytest.raises(WagleError, match=r"but the ledger of .*/a says [0-9a-f]{6}; put"):
        execute(second(home), home / "b", until="teach")


def test_a_run_that_is_not_finished_has_no_successor(home):
    (home / "a" / "ledger.json").unlink()
    with pytest.raises(WagleError, match=r"not a finished run: .* finish it with wagle run .*/a"):
        execute(second(home), home / "b")


def test_what_was_forgotten_cannot_be_retained(home):
    write_rows(home / "retain.jsonl", [*OTHERS[:4], FIRST[1]])
    with pytest.raises(WagleError, match=r"forget\[1\] of .*/a and retain\[4\] are the same"):
        execute(second(home), home / "b")
    execute(second(home, overlap="allow"), home / "b", until="teach")


def test_rules_look_at_the_forget_set_alone(first, tmp_path):
    asked = second(first, "objective", reference=str(first / "tiny"))
    rule = {"stop_when": ["forget.probability < 1"], "check_every": 1}  # the first look ends it
    training = asked.unlearning.model_copy(update=rule)
    run = execute(asked.model_copy(update={"unlearning": training}), tmp_path / "b", until="after")
    (looked,) = [line for line in run.logged("unlearn") if "forget.probability" in line]
    assert looked["forget.probability"] == pytest.approx(
        probability(run, "forget", "after"),
        rel=1e-4,  # float32, other batches
    )
    assert probability(run, "forgotten", "after") < 0.5 * looked["forget.probability"]


BAD = [
    ({"model": "demo"}, r"model.path is 'demo', but after starts from runs/a/model; remove it"),
    ({"model": {"adapter": "lora"}}, r"model.adapter is given, but after starts from an"),
    ({"finetune": {"epochs": 1}}, r"finetune is given, but after starts from an unlearned model"),
    ({"reference": "untaught"}, r"reference is 'untaught', but after teaches nothing"),
    ({"after": None, "model": "demo", "unlearning": {"earlier": "ignore"}}, r"no earlier run; set"),
]


@pytest.mark.parametrize(("sections", "message"), BAD)
def test_a_recipe_that_contradicts_after_is_one_line(sections, message):
    given = {"name": "b", "after": "runs/a", "forget": "forget.json", **sections}
    with pytest.raises(WagleError, match=message) as caught:
        load_recipe(given)
    assert "\n" not in str(caught.value)


def test_after_gives_the_model_its_path_and_leaves_its_other_settings():
    found = load_recipe({"name": "b", "after": "runs/a/", "model": {"dtype": "bfloat16"}})
    assert (found.model.path, found.model.dtype) == ("runs/a/model", "bfloat16")
    assert load_recipe(found.resolved()) == found
    assert load_recipe({"name": "b", "after": "runs/a"}).model.path == "runs/a/model"


# ---------------------------------------------------------------------------------------------
# Coming back


def test_what_comes_back_is_a_warning_that_says_what_to_do(first, tmp_path, caplog):
    paraphrased = [
        {**row, "question": f"{row['question']} Tell me."} for row in FIRST
    ]  # other records to the overlap check, but they teach the same answers
    write_rows(tmp_path / "retain.jsonl", paraphrased)
    asked = second(first, retain=str(tmp_path / "retain.jsonl"))
    settings = {"objective": "grad_diff", "objective_settings": {"forget_weight": 0.0}}
    training = asked.unlearning.model_copy(update={**settings, "epochs": 15, "stop_when": []})
    with caplog.at_level(logging.WARNING, logger="wagle"):
        run = execute(asked.model_copy(update={"unlearning": training}), tmp_path / "b")
    assert probability(run, "forgotten", "after") > probability(run, "forgotten", "before")
    said = "what earlier requests forgot came back: its probability"
    assert any(said in line and "earlier: objective" in line for line in run.warnings())
    page = (tmp_path / "b" / "report.html").read_text()
    assert said in page
    kept, gone = page.split("<h3>Sets that must stay</h3>")[1].split("Forgotten by earlier runs")
    assert 'scope="rowgroup">retain <' in kept
    assert 'scope="rowgroup">forgotten <' not in kept
    assert 'scope="rowgroup">forgotten <' in gone
    assert "the model left by a, float32" in page


# ---------------------------------------------------------------------------------------------
# The file itself


def entry(**changes):
    return Request(
        **{
            "name": "a",
            "when": "2030-01-02T03:04:05+00:00",
            "wagle": "1.0",
            "after": None,
            "objective": {"name": "npo"},
            "training": {},
            "mask": {"digest": "0" * 64, "ratio": 0.05, "count": 1000},
            "forget": {"n": 1200, "digest": "1" * 16},
            "earlier": None,
            "base": "a" * 64,
            "result": "b" * 64,
            "patch": None,
            "verdict": "leaks",
            **changes,
        }
    )


def test_a_request_must_start_from_what_the_one_before_left(tmp_path):
    chain = [entry(), entry(name="b", base="b" * 64, result="c" * 64)]
    write_ledger(tmp_path, chain)
    assert read_ledger(tmp_path) == chain
    assert find_break(chain) is None
    assert find_break([*chain, entry(name="c", base="b" * 64)]) == 2
    message = "ledger of .* is broken: b ended with cccccc, but c started from bbbbbb; run c again"
    with pytest.raises(WagleError, match=message):
        write_ledger(tmp_path, [*chain, entry(name="c", base="b" * 64)])
    assert read_ledger(tmp_path) == chain


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not a ledger"),
        ('{"a": 1}', "is not a ledger"),
        (
            '[{"schema": "wagle-ledger/2"}]',
            "format wagle-ledger/2, this wagle reads wagle-ledger/1",
        ),
        ('["a"]', "format None"),
        ('[{"schema": "wagle-ledger/1"}]', "the field after of an entry is missing"),
        ("[", "is not valid JSON"),
    ],
)
def test_a_file_that_is_no_ledger_is_refused(tmp_path, text, message):
    (tmp_path / "ledger.json").write_text(text)
    with pytest.raises(WagleError, match=message):
        read_ledger(tmp_path)


def test_receipts_of_purges_follow_the_requests_and_are_none(tmp_path):
    write_ledger(tmp_path, [entry()])
    receipt = {"schema": "wagle-purge/1", "when": "then", "deleted": [{"path": "base/"}]}
    add_receipt(tmp_path, receipt)
    assert read_ledger(tmp_path) == [entry()]
    assert read_receipts(tmp_path) == [receipt]
    table = ledger_table(read_ledger(tmp_path), read_receipts(tmp_path))
    assert table.splitlines()[-1] == "purged then: base/"
    (tmp_path / "ledger.json").write_text(json.dumps([receipt]))
    with pytest.raises(WagleError, match="is not a ledger"):
        read_ledger(tmp_path)


def test_the_table_shows_a_line_per_request_and_whether_the_chain_holds():
    chain = [entry(), entry(name="b", mask=None, base="b" * 64, verdict="over-unlearned")]
    assert ledger_table(chain).splitlines() == [
        "   when                       run  records  objective  weights  base    result  verdict",
        "1  2030-01-02T03:04:05+00:00  a    1,200    npo        0.05     aaaaaa  bbbbbb  leaks",
        "2  2030-01-02T03:04:05+00:00  b    1,200    npo        all      bbbbbb  bbbbbb  "
        "over-unlearned",
        "",
        "chain  holds: each request started from the previous one's result",
    ]
    broken = ledger_table([entry(), entry()])
    assert broken.endswith("chain  BROKEN: request 2 did not start from the result of request 1")


def test_the_command_prints_table_or_json_and_fails_on_a_broken_chain(tmp_path, capsys):
    write_ledger(tmp_path, [entry()])
    cli.app(["ledger", str(tmp_path)], standalone_mode=False)
    assert capsys.readouterr().out == ledger_table([entry()]) + "\n"
    cli.app(["ledger", str(tmp_path), "--json"], standalone_mode=False)
    found = json.loads((tmp_path / "ledger.json").read_text())
    assert json.loads(capsys.readouterr().out) == found
    (tmp_path / "ledger.json").write_text(json.dumps([found[0], found[0]]))
    assert cli.app(["ledger", str(tmp_path)], standalone_mode=False) == 1
    assert "BROKEN: request 2" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------
# Adapters in a run


@pytest.fixture
def adapter(first, tmp_path):
    """An adapter of the tiny model, every one of its weights away from where it started."""
    torch.manual_seed(1)
    settings = LoraConfig(r=4, target_modules=["q_proj", "down_proj"])
    wrapped = get_peft_model(load_model(first / "tiny"), settings)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    wrapped.save_pretrained(tmp_path / "lora", save_embedding_layers=False)
    return tmp_path / "lora"


# peft 0.21 asks transformers 5.23 by an old name; wagle itself keeps that from its users
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("taught", [False, True])
def test_an_adapter_is_merged_into_what_the_run_starts_from(first, adapter, tmp_path, taught):
    model = {"path": str(first / "tiny"), "adapter": str(adapter)}
    more = {"finetune": {**TRAINING, "epochs": 2}, "reference": "untaught"} if taught else {}
    run = execute(
        recipe(first, "merged", "first", model=model, **more), tmp_path / "out", until="ledger"
    )
    merged = fingerprint(load_merged(first / "tiny", adapter))
    assert merged != fingerprint(first / "tiny")
    assert fingerprint(run.models.start) == merged
    assert run.models.start == tmp_path / "out" / ("start" if taught else "base")
    assert run.models.base == tmp_path / "out" / "base"
    assert (fingerprint(run.models.base) == merged) is not taught
    assert read_ledger(run.folder)[-1].base == fingerprint(run.models.base)
    if taught:
        assert run.evaluation("reference").details["model"]["fingerprint"] == merged


def test_a_folder_that_is_no_adapter_stops_the_run_in_its_first_stage(first, tmp_path):
    model = {"path": str(first / "tiny"), "adapter": str(tmp_path)}
    with pytest.raises(WagleError, match=r"holds no adapter_config\.json"):
        execute(recipe(first, "merged", "first", model=model), tmp_path / "out")
    assert not (tmp_path / "out" / "base").exists()

"""From a model and a benchmark to figures: references, patches, caches, errors, the command."""

import json
from dataclasses import replace

import pytest
import torch

import wagle
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer
from tests.evaluation.benchmarks.test_tofu import row, write
from wagle.data.reading import read_records
from wagle.data.tokens import Encoder
from wagle.evaluation.comparable import asked_text, paired
from wagle.evaluation.figures import Figure, Measured, Task
from wagle.evaluation.models import Way, find_model
from wagle.evaluation.result import Evaluation
from wagle.evaluation.table import make_task
from wagle.evaluation.tasks.questions import qa
from wagle.patch.application import apply
from wagle.patch.extraction import extract
from wagle.system.errors import WagleError
from wagle.system.files.atomic import write_json
from wagle.system.files.secrets import keyed_digest

TOKENIZER = make_tokenizer()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """TOFU's files with invented content, two models, one as a folder and in a run, its result."""
    home = tmp_path_factory.mktemp("home")
    (home / "tofu").mkdir()
    write(home / "tofu", forget=3, retain=3, world=1)
    for name, seed in (("own", 0), ("retrained", 1)):
        make_model("llama-tied", seed).save_pretrained(home / name)
        TOKENIZER.save_pretrained(home / name)
    (home / "run").mkdir()
    (home / "run" / "recipe.yaml").write_text("name: invented\n")
    (home / "run" / "model").symlink_to(home / "retrained")
    return home


@pytest.fixture(scope="module")
def asked(home):
    """How ``tofu`` is asked here: without greedy answers, which take most of the time."""
    return {"benchmark": "tofu", "settings": {"data": str(home / "tofu"), "generate": False}}


@pytest.fixture(scope="module")
def retrained(home, asked):
    found = wagle.evaluate(home / "retrained", **asked)
    write_json(home / "retrained.json", found.to_json())
    return found


@pytest.fixture(scope="module")
def own(home, asked, retrained):
    return wagle.evaluate(home / "own", **asked, reference=retrained)


class Passes:
    """Counts the forward passes of a live model."""

    def __init__(self, model):
        self.count = 0
        model.get_input_embeddings().register_forward_pre_hook(self._seen)

    def _seen(self, *_):
        self.count += 1


def values(found):
    return {name: {m: f.value for m, f in fs.items()} for name, fs in found.figures.items()}


# ---------------------------------------------------------------------------------------------
# References


def test_a_reference_adds_the_forget_quality_and_nothing_else(home, asked, own):
    alone = wagle.evaluate(home / "own", **asked)
    assert alone.details["reference"] is None
    assert "differences" not in alone.details
    more = set(own.figures["overall"]) - set(alone.figures["overall"])
    parts = {"forget_quality" + tail for tail in ("", "_log10", "_distance", "_shift")}
    assert more == parts
    left = {m: v for m, v in values(own)["overall"].items() if m not in parts}
    assert {**values(own), "overall": left} == values(alone)


@pytest.mark.parametrize("form", ["live model", "folder", "run folder", "result file"])
def test_a_reference_is_a_live_model_a_folder_a_run_a_result_file_or_an_evaluation(
    home, asked, own, form
):
    reference, kind = {
        "live model": (make_model("llama-tied", 1), {"kind": "model"}),
        "folder": (home / "retrained", {"kind": "model", "path": str(home / "retrained")}),
        "run folder": (str(home / "run"), {"kind": "model", "path": str(home / "run/model")}),
        "result file": (
            home / "retrained.json",
            {"kind": "result", "path": str(home / "retrained.json")},
        ),
    }[form]
    model = make_model("llama-tied", 0)
    found = wagle.evaluate(model, TOKENIZER, **asked, reference=reference)
    assert values(found) == values(own)
    told = dict(found.details["reference"])
    assert told.pop("fingerprint") == own.details["reference"]["fingerprint"]
    assert told == kind
    assert found.details["differences"] == own.details["differences"]


def test_an_evaluation_as_a_reference_says_which_model_it_is_of(own, retrained):
    model = retrained.details["model"]
    assert own.details["reference"] == {"kind": "result", **model}


def test_the_same_figures_have_forget_quality_1_and_no_difference(home, asked, retrained):
    unknown = {**retrained.details, "model": {}}  # so that the roles cannot be told to be one model
    same = replace(retrained, details=unknown)
    found = wagle.evaluate(home / "retrained", **asked, reference=same)
    assert found.figures["overall"]["forget_quality"].value == 1
    for difference in found.details["differences"].values():
        assert (difference["mean"], difference["p"]) == (0, 1)


def test_a_reference_of_other_records_is_refused(home, asked, retrained):
    less = {**asked["settings"], "rows": 2}
    with pytest.raises(WagleError, match=r"reference has other records: 3 in the set forget, .*2"):
        wagle.evaluate(home / "own", benchmark="tofu", settings=less, reference=retrained)


def _others(tmp_path):
    """The same files with one other answer."""
    write(tmp_path, forget=3, retain=3, world=1)
    rows = [row("forget", i) for i in range(3)]
    rows[1]["answer"] = "Author 1 wrote the novel Snow Garden."
    (tmp_path / "forget10_perturbed.json").write_text("\n".join(map(json.dumps, rows)))
    return {"data": str(tmp_path)}


DIFFERS = {
    "answers": (_others, "other records: its 3 in the set forget have other texts"),
    "eos": (lambda _: {"eos": False}, "asked with eos true, this model with false"),
    "variant": (lambda _: {"variant": "paper"}, "with variant official, this model with paper"),
    "template": (lambda _: {"template": "plain"}, "with template chat, this model with plain"),
}


@pytest.mark.parametrize("what", list(DIFFERS))
def test_a_result_of_other_answers_or_settings_is_refused_before_a_model_is_asked(
    home, asked, retrained, tmp_path, what
):
    made, message = DIFFERS[what]
    settings = {**asked["settings"], **made(tmp_path)}
    model = make_model("llama-tied")
    passes = Passes(model)
    for reference in (retrained, home / "retrained.json"):
        with pytest.raises(WagleError, match=message) as caught:
            wagle.evaluate(
                model, TOKENIZER, benchmark="tofu", settings=settings, reference=reference
            )
        assert "\n" not in str(caught.value)
    assert passes.count == 0


def test_an_older_result_without_data_is_still_a_reference(home, asked, own, tmp_path):
    old = json.loads((home / "retrained.json").read_text())
    for data in ({"split": "forget10", "counts": {"forget": 3}}, None):
        old["data"] = data
        write_json(tmp_path / "old.json", old)
        found = wagle.evaluate(home / "own", **asked, reference=tmp_path / "old.json")
        assert values(found) == values(own)


def test_qa_sets_of_other_records_have_no_differences():
    model = make_model("llama-tied", 1)
    common = {"tokenizer": TOKENIZER, "generate": False}
    other = make_model("llama-tied", 2)
    reference = wagle.evaluate(other, forget=RECORDS[:2], retain=OTHERS[:2], **common)
    found = wagle.evaluate(model, forget=RECORDS[:2], **common, reference=reference)
    assert found.details["differences"]["forget.nll"]["n"] == 2  # fewer sets will do
    passes = Passes(model)
    for sets, message in (
        ({"forget": RECORDS[2:4]}, "its 2 in the set forget have other texts"),
        ({"forget": RECORDS[1::-1]}, "have other texts or another order"),
        ({"forget": RECORDS[:3]}, "2 in the set forget, where this model is asked about 3"),
        ({"general": RECORDS[:2]}, "none of the sets general, but forget, retain"),
    ):
        with pytest.raises(WagleError, match=message):
            wagle.evaluate(model, **sets, **common, reference=reference)
    assert passes.count == 0


def test_a_result_with_another_system_prompt_is_refused():
    model = make_model("llama-tied")
    brief, long = (Encoder(TOKENIZER, system_prompt=f"Be {how}.") for how in ("brief", "long"))
    reference = wagle.evaluate(model, brief, forget=RECORDS[:2], generate=False)
    with pytest.raises(WagleError, match=r"system_prompt Be brief\., this model with Be long\."):
        wagle.evaluate(model, long, forget=RECORDS[:2], generate=False, reference=reference)
    with pytest.raises(WagleError, match=r"Be brief\., this model with the template's own"):
        wagle.evaluate(model, TOKENIZER, forget=RECORDS[:2], generate=False, reference=reference)


def test_a_result_whose_answers_were_cut_elsewhere_is_of_other_records(caplog):
    model = make_model("llama-tied")
    rows = [{"question": "Where?", "answer": r["answer"] * 2} for r in RECORDS[:2]]
    whole, cut = (Encoder(TOKENIZER, max_length=length) for length in (512, 20))
    with caplog.at_level("WARNING", logger="wagle"):
        reference = wagle.evaluate(model, cut, forget=rows, generate=False)
    assert "do not fit into max_length=20" in caplog.text
    with pytest.raises(WagleError, match="its 2 in the set forget have other texts"):
        wagle.evaluate(model, whole, forget=rows, generate=False, reference=reference)


def test_an_older_result_of_other_records_is_found_out_before_a_model_is_asked():
    rows = [row("forget", i) for i in range(3)]
    model = make_model("llama-tied")
    common = {"tokenizer": TOKENIZER, "generate": False}
    found = wagle.evaluate(make_model("llama-tied", 1), forget=rows, **common)
    old = replace(found, details={k: v for k, v in found.details.items() if k != "data"})
    assert wagle.evaluate(model, forget=rows, **common, reference=old).details["differences"]
    passes = Passes(model)
    with pytest.raises(WagleError, match="forget quality needs the same records: 2 and 3"):
        wagle.evaluate(model, forget=rows[:2], **common, reference=old)
    assert passes.count == 0


def test_a_result_of_another_benchmark_is_refused(asked):
    model = make_model("llama-tied")
    reference = wagle.evaluate(model, TOKENIZER, forget=RECORDS[:3], generate=False)
    data = {**reference.details["data"], "settings": {}}
    bare = replace(reference, details={**reference.details, "data": data})
    with pytest.raises(WagleError, match="result of the benchmark qa, not of tofu"):
        wagle.evaluate(model, TOKENIZER, **asked, reference=bare)


def test_a_result_file_of_qa_holds_no_digest_that_others_could_test(home, tmp_path):
    def asked(folder):
        found = wagle.evaluate(
            home / "own", forget=RECORDS[:1], generate=False, cache=folder
        ).to_json()["data"]
        return found["sets"]["forget"]["digest"], found["salt"]

    one, again, other, none = map(asked, (tmp_path / "a", tmp_path / "a", tmp_path / "b", None))
    assert one == again
    assert len({one, other, none}) == len({salt for _, salt in (one, other, none)}) == 3
    records = read_records(RECORDS[:1], name="forget")
    texts = [asked_text(record) for record in records]
    assert one[0] not in {keyed_digest(b"", texts), keyed_digest(b"published", texts)}


def test_a_reference_of_another_salt_is_compared_in_number_and_settings(home, tmp_path):
    common = {"generate": False, "cache": tmp_path / "own"}
    reference = wagle.evaluate(
        home / "retrained", forget=RECORDS[:2], generate=False, cache=tmp_path / "other"
    )
    found = wagle.evaluate(home / "own", forget=RECORDS[:2], **common, reference=reference)
    assert found.details["differences"]
    with pytest.raises(WagleError, match="2 in the set forget"):
        wagle.evaluate(home / "own", forget=RECORDS[:3], **common, reference=reference)


def test_differences_are_paired_by_record(own, retrained):
    found = own.details["differences"]
    figure, beside = (e.figures["forget"]["probability"].per_record for e in (own, retrained))
    assert list(figure) == ["forget[0]", "forget[1]", "forget[2]"]
    mean = sum(figure[place] - beside[place] for place in figure) / 3
    assert found["forget.probability"]["mean"] == pytest.approx(mean)
    assert found["forget.probability"]["n"] == 3
    assert not any(key.startswith("overall.") for key in found)  # made of figures, not of records


def test_figures_of_other_records_have_no_difference():
    def figures(**rows):
        return Measured({"forget": {m: Figure(0.5, None, "", r) for m, r in rows.items()}})

    own = figures(one={"a": 1.0, "b": 3.0}, two={"a": 1.0}, made={}, alone={"a": 1.0})
    other = figures(one={"b": 1.0, "a": 2.0}, two={"b": 1.0}, made={})
    found = paired(own, other)
    assert list(found) == ["forget.one"]
    assert found["forget.one"]["mean"] == 0.5  # of 1 - 2 and 3 - 1


def test_qa_sets_take_a_reference_too(home):
    rows = [row("forget", i) for i in range(3)]
    reference = make_model("llama-tied", 1)
    found = wagle.evaluate(home / "own", forget=rows, generate=False, reference=reference)
    assert found.figures["overall"]["forget_quality_distance"].n == 6
    assert found.details["differences"]["forget.nll"]["n"] == 3


# ---------------------------------------------------------------------------------------------
# Patches, runs, caches


def test_a_patch_gives_the_figures_of_the_folder_that_it_makes(home, asked, tmp_path):
    model = make_model("llama-tied", 0)
    with torch.no_grad():
        for parameter in list(model.parameters())[1:4]:
            parameter.add_(0.1)
    model.save_pretrained(tmp_path / "result")
    TOKENIZER.save_pretrained(tmp_path / "result")
    extract(home / "own", tmp_path / "result", tmp_path / "p.safetensors")
    apply(home / "own", tmp_path / "p.safetensors", tmp_path / "applied")
    patched = wagle.evaluate(home / "own", patch=tmp_path / "p.safetensors", **asked)
    applied = wagle.evaluate(tmp_path / "applied", **asked)
    plain = wagle.evaluate(home / "own", **asked)
    assert values(patched) == values(applied) != values(plain)
    told = patched.details["model"]
    assert told["fingerprint"] == applied.details["model"]["fingerprint"]
    assert (told["path"], told["patches"]) == (str(home / "own"), ["p.safetensors"])
    assert "patches" not in applied.details["model"]


def test_a_patch_on_a_live_model_is_refused(asked):
    with pytest.raises(WagleError, match="a patch needs a model folder"):
        wagle.evaluate(make_model("llama-tied"), TOKENIZER, patch="p.safetensors", **asked)


def test_a_run_folder_stands_for_the_model_that_it_holds(home, tmp_path):
    assert find_model(home / "run") == home / "run" / "model"
    assert find_model(home / "own") == home / "own"
    (tmp_path / "recipe.yaml").write_text("name: unfinished\n")
    with pytest.raises(WagleError, match="base does not exist"):
        find_model(tmp_path)
    (tmp_path / "base").symlink_to(home / "own")
    assert find_model(tmp_path) == tmp_path / "base"


def test_what_the_cache_knows_is_not_asked_again(asked, tmp_path):
    model = make_model("llama-tied", 0)
    passes = Passes(model)
    first = wagle.evaluate(model, TOKENIZER, **asked, cache=tmp_path / "answers")
    seen = passes.count
    assert seen > 0
    again = wagle.evaluate(model, TOKENIZER, **asked, cache=tmp_path / "answers")
    assert passes.count == seen
    assert values(again) == values(first)
    assert (tmp_path / "answers").stat().st_mode & 0o777 == 0o700
    wagle.evaluate(model, TOKENIZER, **asked, cache=tmp_path / "answers", precision="bfloat16")
    assert passes.count > seen  # another precision is another question


def test_a_model_in_another_dtype_is_not_served_the_answers_of_its_twin(asked, tmp_path):
    narrow = make_model("llama-tied", 0).to(torch.bfloat16)
    wide = make_model("llama-tied", 0).to(torch.bfloat16).float()  # the same fingerprint
    first = wagle.evaluate(wide, TOKENIZER, **asked, cache=tmp_path)
    passes = Passes(narrow)
    second = wagle.evaluate(narrow, TOKENIZER, **asked, cache=tmp_path)
    assert first.details["model"]["fingerprint"] == second.details["model"]["fingerprint"]
    assert passes.count > 0


def test_two_benchmarks_share_the_answers_of_one_cache(asked, tmp_path):
    model = make_model("llama-tied", 0)
    wagle.evaluate(model, TOKENIZER, **asked, cache=tmp_path)
    passes = Passes(model)
    settings = {**asked["settings"], "variant": "paper"}  # other formulas of the same answers
    wagle.evaluate(model, TOKENIZER, benchmark="tofu", settings=settings, cache=tmp_path)
    assert passes.count == 0


def test_figures_do_not_depend_on_the_batch(asked):
    model = make_model("llama-tied", 0)
    one, other = (
        wagle.evaluate(model, TOKENIZER, **asked, batch_tokens=tokens).summary()
        for tokens in (1, 5000)
    )
    assert one.keys() == other.keys()
    for name in one:
        assert one[name] == pytest.approx(other[name], abs=1e-5)


def test_what_another_library_asks_joins_the_figures():
    def figure(value):
        return Figure(value, None, "none", count=1)

    task = Task(
        (),
        lambda _: Measured({"a": {"x": figure(1.0)}}, summary={"x": 1}),
        ask=lambda _: Measured(
            {"a": {"y": figure(2.0)}, "b": {"z": figure(3.0)}}, summary={"y": 2}
        ),
    )
    found = Way(Encoder(TOKENIZER)).ask(make_model("llama-tied"), task)
    assert values(found) == {"a": {"x": 1.0, "y": 2.0}, "b": {"z": 3.0}}
    assert found.summary == {"x": 1, "y": 2}


# ---------------------------------------------------------------------------------------------
# The result file


def test_the_result_has_the_keys_of_its_schema_and_no_text(home, asked, own):
    settings = {**asked["settings"], "data": home / "tofu"}  # a path is no JSON
    found = wagle.evaluate(home / "own", benchmark="tofu", settings=settings, seed=3).to_json()
    text = json.dumps(found, allow_nan=False)
    keys = "schema model template benchmark variant options reference probes data metrics summary"
    assert {*keys.split(), "timing", "versions"} == set(found)
    assert (found["schema"], found["benchmark"]) == ("wagle-eval/1", "tofu")
    assert found["variant"] == "official, version 3"
    assert found["data"]["sets"]["forget"]["n"] == 3
    assert (found["data"]["split"], found["data"]["revision"]) == ("forget10", None)
    assert found["data"]["salt"] is None  # published data
    assert found["data"]["settings"] == {
        "version": 3,
        "split": "forget10",
        "variant": "official",
        "eos": True,
        "template": "chat",
        "system_prompt": "the template's own",
        "max_new_tokens": None,
        "sentence_encoder": None,
        "fluency": None,
        "entailment": None,
        "closer_look": None,
        "k": None,
        "membership_eos": None,
    }
    assert found["options"] == {
        "precision": "float32",
        "seed": 3,
        "data": str(home / "tofu"),
        "generate": False,
    }
    assert set(found["versions"]) == {"wagle", "torch", "transformers"}
    assert found["timing"]["requests"] > 0
    with_reference = own.to_json()
    assert set(with_reference) - set(found) == {"differences"}
    for i in range(3):
        for value in (v for v in row("forget", i).values() if isinstance(v, str)):
            assert value not in text


def test_a_result_read_back_is_the_same_reference(home, asked, own):
    read = Evaluation.from_json(json.loads((home / "retrained.json").read_text()))
    found = wagle.evaluate(home / "own", **asked, reference=replace(read, texts={}))
    assert values(found) == values(own)


# ---------------------------------------------------------------------------------------------
# Errors


def _tofu(home, **settings):
    return {"benchmark": "tofu", "settings": {"data": str(home / "tofu"), **settings}}


WRONG = {
    "nothing": (lambda _: {}, "nothing to evaluate: give at least one set of records"),
    "unknown benchmark": (
        lambda home: {**_tofu(home), "benchmark": "tofuu"},
        "unknown benchmark 'tofuu'; did you mean 'tofu'",
    ),
    "missing setting": (
        lambda _: {"benchmark": "tofu"},
        "benchmark tofu needs the setting data",
    ),
    "unknown setting": (
        lambda home: _tofu(home, spilt="forget10"),
        "benchmark tofu has no setting 'spilt'; did you mean 'split'",
    ),
    "wrong kind": (
        lambda home: _tofu(home, rows="few"),
        "benchmark tofu: rows is 'few'; input should be a valid integer",
    ),
    "missing split": (
        lambda home: _tofu(home, split="forget05"),
        r"lacks forget05_perturbed .*\.json",
    ),
    "sets beside a benchmark": (
        lambda home: {**_tofu(home), "forget": RECORDS},
        "leave out forget",
    ),
    "settings beside sets": (
        lambda _: {"forget": RECORDS, "settings": {"rows": 1}},
        "qa takes sets of records, not settings; got rows",
    ),
    "limits beside a benchmark": (
        lambda home: {**_tofu(home), "generate": False},
        "put those it has into settings",
    ),
    "no reference": (
        lambda home: {**_tofu(home), "reference": home / "none"},
        "none does not exist",
    ),
    "no result": (
        lambda home: {**_tofu(home), "reference": home / "own/config.json"},
        "is not a result file of",
    ),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_is_missing_or_wrong_is_one_line_before_the_model_is_asked(home, case):
    given, message = WRONG[case]
    model = make_model("llama-tied")
    passes = Passes(model)
    with pytest.raises(WagleError, match=message) as caught:
        wagle.evaluate(model, TOKENIZER, **given(home))
    assert "\n" not in str(caught.value)
    assert passes.count == 0


# ---------------------------------------------------------------------------------------------
# The command


def test_the_command_asks_one_model_and_writes_its_result(home, own, inside, tmp_path):
    out, reference = tmp_path / "own.json", ["--reference", home / "retrained.json"]
    settings = [f"data={home / 'tofu'}", "split=forget10", "generate=false"]
    command = ["evaluate", home / "own", "--benchmark", "tofu", *settings, *reference]
    printed = json.loads(inside(*command, "--out", out, "--json"))
    assert printed == json.loads(out.read_text())
    assert printed["summary"] == pytest.approx(dict(own.peers))
    assert printed["options"]["split"] == "forget10"
    assert Evaluation.from_json(printed).summary() == own.summary()
    table = inside(*command, "--all")
    assert "overall.forget_quality" in table
    assert "real_authors.probability" in table
    assert "real_authors" not in inside(*command)


def test_options_of_one_model_go_with_a_benchmark_only(inside, home):
    for option in ("--before", "--reference", "--patch", "--cache"):
        with pytest.raises(WagleError, match=f"{option} needs --benchmark"):
            inside("evaluate", home / "own", option, "x")


def test_the_sets_of_records_are_told_apart_from_one_another(home):
    found = wagle.evaluate(home / "own", forget=RECORDS[:2], retain=OTHERS[:2], generate=False)
    assert set(found.figures) == {"forget", "retain"}
    assert found.details["variant"].startswith("version ")


def test_a_model_that_gives_no_numbers_is_named_with_the_record(tmp_path):
    folder = tmp_path / "broken"
    model = make_model("llama-untied")
    said = TOKENIZER(RECORDS[1]["answer"])["input_ids"]
    others = {
        i for r in RECORDS[:1] + RECORDS[2:] for v in r.values() for i in TOKENIZER(v).input_ids
    }
    with torch.no_grad():
        model.get_input_embeddings().weight[[i for i in said if i not in others]] = float("nan")
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    message = r"the model .*broken gives log-probabilities that are not finite for forget\[1\]; its"
    with pytest.raises(WagleError, match=message):
        wagle.evaluate(folder, forget=RECORDS, generate=False)


def test_every_request_of_a_benchmark_says_which_record_it_is_of(home):
    encoder, settings = Encoder(TOKENIZER), {"data": str(home / "tofu")}
    sets = {"forget": read_records([row("forget", 0), row("forget", 1)], name="forget")}
    for task in (make_task("tofu", encoder, settings, seed=0), qa(encoder, sets=sets)):
        assert all(request.place for request in task.requests)

"""The benchmarks, on tiny models: what they compute is right, whatever the seconds are."""

import json
import math
import random
import time
from dataclasses import asdict, replace

import bench.attribution
import pytest
import torch
from bench import planted, run
from bench.attribution import measure
from bench.independent import main as independent_main
from bench.independent import wagle_mask
from bench.lines import at_most
from bench.measure import Memory, disk_rates, in_own_process
from bench.measures import MEASURES
from bench.models import SHAPES, make_folder, weights_of
from bench.planted_parts import PARTS, as_mask, choose_parts, kind_of
from bench.ranking import NEITHER, TAUGHT, UNTAUGHT, count, rank
from bench.rows import DEPTHS, ROWS
from bench.setup import Setup, random_sets, record_sets
from safetensors.torch import load_file

import wagle
from tests.conftest import make_model
from wagle.data.tokens import Encoder
from wagle.model.loading import load_model


def _ready(tokenizer, rows):
    """Records as ids and labels, -100 where nothing is scored."""
    tokens = Encoder(tokenizer).encode(wagle.read_records(rows))
    return [
        {
            "input_ids": list(t.ids),
            "labels": [i if s else -100 for i, s in zip(t.ids, t.scored, strict=True)],
        }
        for t in tokens
    ]


def _jaccard(one, other):
    both = sum(int((one[n] & other[n]).sum()) for n in one)
    return both / sum(int((one[n] | other[n]).sum()) for n in one)


# ---------------------------------------------------------------------------------------------
# The independent mask


@pytest.mark.parametrize("family", ["llama-tied", "gpt2"])
@pytest.mark.parametrize(("share", "ratio"), [(0.2, "0.05"), (0.5, "0.29"), (0.8, "0.9")])
def test_the_mask_equals_an_independent_one(family, share, ratio, tokenizer, forget, retain):
    gone, kept = _ready(tokenizer, forget), _ready(tokenizer, retain)
    model = make_model(family)
    store = wagle.gradients(
        model, None, gone, kept, engine="whole", retain_records=len(kept), batch_tokens=128
    )
    mask = wagle.Mask.from_scores(store, gamma={"theta_share": share}, ratio=ratio)
    gamma = mask.metadata["settings"]["gamma"]
    plain = wagle_mask(model, gone, kept, gamma, ratio)
    assert list(plain) == list(mask)
    assert sum(int(part.sum()) for part in plain.values()) == mask.count
    assert _jaccard(plain, mask) >= 0.999


def test_the_independent_mask_is_made_from_files_too(model_folder, tokenizer, forget, tmp_path):
    rows = _ready(tokenizer, forget)
    for name, part in (("forget", rows[:2]), ("retain", rows[2:4])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in part))
    out = tmp_path / "mask.safetensors"
    independent_main(model_folder, tmp_path / "forget", tmp_path / "retain", "1e-3", "0.1", out)
    found = load_file(out)
    total = sum(part.numel() for part in found.values())
    assert sum(int(part.sum()) for part in found.values()) == total // 10


# ---------------------------------------------------------------------------------------------
# Models and measuring


def test_a_made_folder_loads_and_is_the_same_every_time(tmp_path):
    made = [make_folder("tiny-3", tmp_path / name) for name in "ab"]
    one, other = (load_model(folder, dtype="bfloat16").state_dict() for folder in made)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(list(made[0].glob("*.safetensors"))) == 5  # stem, three blocks, head
    matrix = one["model.layers.1.mlp.up_proj.weight"].float()
    assert abs(float(matrix.std()) - 0.02) < 0.001
    assert not torch.equal(matrix, one["model.layers.2.mlp.up_proj.weight"].float())
    assert bool((one["model.norm.weight"] == 1).all())
    assert sum(t.numel() for t in one.values()) == weights_of("tiny-3")


def test_the_large_shapes_have_the_weights_of_their_names():
    assert set(SHAPES) == {"tinyllama-1.1b", "llama-1.5b", "llama-2-7b", "tiny"}
    assert weights_of("tinyllama-1.1b") == 1_100_048_384
    assert weights_of("llama-1.5b") == 1_540_491_264
    assert weights_of("llama-2-7b") == 6_738_415_616
    with pytest.raises(wagle.WagleError, match="did you mean 'llama-2-7b'"):
        weights_of("llama-2-7")


def test_memory_sees_an_allocation_and_keeps_its_peak():
    with Memory() as memory:
        before = memory.anonymous
        block = torch.ones(25_000_000)  # 0.1 GB
        time.sleep(0.3)  # many samples
        del block
    assert memory.anonymous >= before + 0.09
    assert memory.peak >= memory.anonymous


def test_the_disk_rate_leaves_no_file(tmp_path):
    found = disk_rates(tmp_path, 1 << 24)
    assert found["write"] > 0
    assert found["read"] > 0
    assert not list(tmp_path.iterdir())


def test_random_records_have_the_lengths_of_tofu_and_differ():
    forget, retain = random_sets("tiny", 3)
    rows = [*forget, *retain]
    assert {len(row["input_ids"]) for row in rows} == {62}
    assert {sum(label != -100 for label in row["labels"]) for row in rows} == {40}
    assert len({tuple(row["input_ids"]) for row in rows}) == 6


def test_tofu_is_read_from_a_folder_of_splits(tmp_path, forget, retain):
    for name, rows in (("forget01", forget), ("retain99", retain)):
        (tmp_path / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    gone, kept = record_sets(Setup("", str(tmp_path), ""), 3)
    assert [r.prompt for r in gone] == [row["question"] for row in forget[:3]]
    assert [r.prompt for r in kept] == [row["question"] for row in retain[:3]]


# ---------------------------------------------------------------------------------------------
# Rows


@pytest.fixture
def in_this_process(monkeypatch):
    """Measure without starting processes; figures still go through JSON."""

    def here(module, name, setup):
        assert module == "bench.measures"
        return json.loads(json.dumps(MEASURES[name](Setup(**setup))))

    monkeypatch.setattr(bench.attribution, "in_own_process", here)


@pytest.mark.usefixtures("in_this_process")
def test_every_row_runs_on_a_tiny_model(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("bench.unlearning.STEPS", 3)
    setup = Setup(str(model_folder), None, str(tmp_path / "scratch"), "tiny")
    setup.at("x")
    lines = measure(list(ROWS), setup)
    assert {line.row for line in lines} == set(ROWS)
    assert all(math.isfinite(line.value) for line in lines)
    assert all(line.text().startswith(line.row) for line in lines)
    (equal,) = [line for line in lines if line.row == "stream_equal"]
    assert equal.ok, equal.text()
    assert not list((tmp_path / "scratch").iterdir())


def test_a_row_is_measured_in_a_process_of_its_own(tmp_path):
    asked = asdict(Setup("", None, str(tmp_path), "tiny"))
    found = in_own_process("bench.measures", "make_1b", asked)
    assert found["seconds"] > 0
    assert 0 < found["anonymous_gb"] <= found["peak_gb"] < 2
    assert (tmp_path / "large" / "model" / "config.json").is_file()


def test_a_full_disk_leaves_the_row_out_in_one_line(tmp_path, monkeypatch, capsys):
    class Usage:
        free = 30e9

    monkeypatch.setattr(bench.attribution.shutil, "disk_usage", lambda _: Usage)
    assert measure(["stream_7b"], Setup("", None, str(tmp_path))) == []
    assert "stream_7b is skipped: it needs 44.7 GB" in capsys.readouterr().err


def test_depth_compares_the_largest_peak_with_the_smallest():
    peaks = {
        f"stream_depth_{n}": {"peak_gb": p} for n, p in zip(DEPTHS, (2.0, 2.1, 2.25), strict=True)
    }
    last = ROWS["depth"].lines(peaks)[-1]
    assert last.value == pytest.approx(0.125)
    assert last.ok is False


def test_a_bound_is_kept_or_missed():
    assert at_most("whole", "time", 2.0, "s", 3.0).ok is True
    missed = at_most("whole", "time", 4.0, "s", 3.0, "1.1 x plain")
    assert missed.ok is False
    assert missed.text().endswith("<= 3 = 1.1 x plain                 MISS")


def test_whole_is_held_against_the_better_of_the_plain_passes():
    plain = {"rates": {"8": 100.0}, "best": 100.0, "real_tokens": 1000}
    found = {
        "gradients": 12.0,
        "selection": 1.0,
        "writing": 0.5,
        "weights": 1_000_000_000,
        "mask_bytes": 505_000_000,
        "peak_gb": 11.0,
        "anonymous_gb": 9.0,
    }
    known = {
        "bare": plain,
        "bare_again": {**plain, "best": 110.0},
        "whole": found,
        "whole_disk": {"gradients": 14.0, "store_bytes": 3e9, "disk": {"write": 1.5}},
    }
    first, *rest = ROWS["whole"].lines(known)
    assert first.value == 13.5
    assert first.bound.startswith(f"<= {1.1 * 1000 / 110 + 3:.4g}")
    assert first.ok is False
    values = {line.what: line.value for line in rest}
    assert values["writing the store: gradients with minus without it"] == 2.0
    assert values["  a file of its size, written and synced"] == 2.0
    (peak,) = [line for line in rest if line.what.startswith("peak memory")]
    assert peak.ok is True  # 2 + 8 + 1.3 GB
    assert ROWS["mask_bytes"].lines(known)[0].ok is True


@pytest.mark.usefixtures("in_this_process")
def test_the_command_prints_a_table_and_writes_json(model_folder, tmp_path, capsys):
    options = ["--model", str(model_folder), "--scale", "tiny", "--scratch", str(tmp_path / "s")]
    bench.attribution.main([*options, "--rows", "mask_bytes", "--json", str(tmp_path / "x.json")])
    assert "a ten-ratio mask file" in capsys.readouterr().out
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["about"]["model"] == "tiny"
    assert [line["row"] for line in found["lines"]] == ["mask_bytes"]
    with pytest.raises(SystemExit, match="unknown row 'hole'; did you mean 'whole'"):
        bench.attribution.main([*options, "--rows", "hole"])
    assert set(run.QUICK) < set(ROWS)


# ---------------------------------------------------------------------------------------------
# Planted knowledge


def test_ranking_equals_a_count_of_all_pairs():
    draw = random.Random(0)
    scores = torch.tensor([float(2 ** draw.randrange(-4, 4)) for _ in range(300)])  # exact in bins
    labels = torch.tensor([draw.choice([NEITHER, UNTAUGHT, TAUGHT]) for _ in range(300)])
    found = rank(count(scores, labels.to(torch.uint8)))

    def pairs(positive, negative):
        one, other = scores[positive], scores[negative]
        wins = (one[:, None] > other).double() + 0.5 * (one[:, None] == other).double()
        return float(wins.mean())

    assert found.auc == pytest.approx(pairs(labels == TAUGHT, labels != TAUGHT), abs=1e-12)
    assert found.untaught == pytest.approx(pairs(labels == UNTAUGHT, labels == NEITHER), abs=1e-12)
    k = int((labels == TAUGHT).sum())
    assert found.share == pytest.approx(k / 300)
    last = scores.sort(descending=True).values[k - 1]
    above, tied = scores > last, scores == last
    open_places = (k - int(above.sum())) / int(tied.sum())
    hits = int((labels[above] == TAUGHT).sum()) + open_places * int((labels[tied] == TAUGHT).sum())
    assert found.precision == pytest.approx(hits / k)


def test_ranking_knows_a_perfect_score_and_a_reversed_one():
    labels = torch.tensor([TAUGHT] * 3 + [UNTAUGHT] * 3 + [NEITHER] * 6, dtype=torch.uint8)
    scores = torch.tensor([9.0, 8, 7, 3, 3, 3, 1, 1, 1, 0, 0, 0])
    found = rank(count(scores, labels))
    assert (found.auc, found.precision, found.untaught) == (1.0, 1.0, 1.0)
    back = rank(count(10 - scores, labels))
    assert (back.auc, back.precision) == (0.0, 0.0)
    assert rank(count(scores - 5, labels)) == found  # what is below 0 has its rank too
    assert rank(count(-scores, labels)).auc == 0.0
    with pytest.raises(wagle.WagleError, match="not finite"):
        count(scores / 0, labels)
    assert rank(count(scores, torch.zeros_like(labels))) is None


@pytest.mark.parametrize("kind", sorted(PARTS))
def test_two_parts_are_disjoint_alike_and_drawn_by_seed(kind):
    model = make_model("llama-tied")
    parts = choose_parts(model, kind, 3)
    sizes = [sum(int(t.sum()) for t in part.values()) for part in parts]
    assert sizes[0] == sizes[1] > 0
    for name in parts.taught:
        assert kind_of(name) is not None
        assert not bool((parts.taught[name] & parts.untaught[name]).any())
    again, other = choose_parts(model, kind, 3), [choose_parts(model, kind, s) for s in range(9)]
    assert all(torch.equal(again.taught[n], parts.taught[n]) for n in parts.taught)
    assert any(not torch.equal(o.taught[n], parts.taught[n]) for o in other for n in parts.taught)
    mask = as_mask(model, parts.taught, kind, 3)
    assert mask.count == sizes[0]
    mask.check_model(model)


def test_a_head_takes_its_rows_its_columns_and_its_group():
    model = make_model("llama-tied")  # 4 heads of 8, 2 groups
    part = choose_parts(model, "heads", 0).taught
    at = {kind_of(n): t for n, t in part.items() if n.startswith("model.layers.0.")}
    head = int(at["q"].any(1).nonzero()[0]) // 8
    assert at["q"].any(1).nonzero().squeeze(1).tolist() == list(range(head * 8, head * 8 + 8))
    assert torch.equal(at["o"].any(0), at["q"].any(1))
    group = head // 2
    assert at["k"].any(1).nonzero().squeeze(1).tolist() == list(range(group * 8, group * 8 + 8))
    assert torch.equal(at["k"], at["v"])


def test_planted_knowledge_is_searched_for_and_written_up(model_folder, tmp_path):
    out, figures = tmp_path / "planted.md", tmp_path / "planted.json"
    options = ["--model", str(model_folder), "--scale", "tiny", "--kinds", "rows,heads"]
    planted.main([*options, "--out", str(out), "--json", str(figures)])
    rows, heads = json.loads(figures.read_text())
    assert rows["after"] > rows["before"]
    assert 0 < rows["changed"] <= rows["weights"][0]
    assert rows["scores"]["oracle"]["all"]["auc"] > 0.9  # nothing else can have moved
    assert abs(rows["scores"]["random"]["all"]["auc"] - 0.5) < 0.1
    assert heads["scores"]["oracle"]["up"] is None  # a head has no part in the MLP
    assert set(planted.SCORES) | {"oracle"} == set(rows["scores"])
    text = out.read_text()
    assert text.count("## ") == 2
    assert all(f"| `{score}` |" in text for score in rows["scores"])
    assert "| `random` |" in text


def test_no_power_is_said_of_a_blind_score_and_of_a_failing_oracle():
    def found(auc, untaught):
        overall = planted.Found(auc, untaught, 0.1, 0.05, 0.0)
        return {"all": overall, **dict.fromkeys(planted.KINDS)}

    scores = {"a": found(0.9, 0.5), "b": found(0.6, 0.59), "c": found(0.46, 0.39)}
    scores["random"] = found(0.5, 0.5)
    scores["oracle"] = found(0.99, 0.5)
    known = planted.Planted("rows", 0, (1, 2), 0.1, 0.9, 4, 1, 1.0, scores)
    assert [known.verdict(s) for s in ("a", "b", "c")] == ["", "no power", "at chance"]
    assert "`a` with an AUC of 0.900" in planted.section(known)
    unlearned = replace(known, after=0.2)
    assert planted.section(unlearned).endswith("(probability 0.200): nothing follows.")
    scores["oracle"] = found(0.6, 0.5)
    assert known.verdict("a") == "no power"
    assert "None of 3 scores" in planted.section(known)

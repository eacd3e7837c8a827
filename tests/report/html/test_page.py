"""The report page: what it shows, what it escapes, and what it never holds."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.report.html.test_attacks import figure as measured
from tests.report.html.test_attacks import relearning, sampling
from wagle.evaluation.figures import Figure
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import INCONCLUSIVE, LEAKS, NO_LEAK, OVER
from wagle.metrics.table import METRICS
from wagle.recipe.reading import dump_recipe, load_recipe
from wagle.report.html.page import Page
from wagle.report.html.rendering import render, write_report

EVIL = "<script>alert('x')</script> \"quoted\" & 'single'"
FINGERPRINT = "0123456789abcdef" * 4
RECIPE = {
    "name": "trial",
    "seed": 5,
    "model": "/home/alice/models/tiny-llama",
    "reference": "untaught",
    "forget": "/home/alice/private place/people.jsonl",
    "retain": {"source": "demo:retain", "take": "10%"},
    "general": "demo:general",
    "finetune": {},
    "attribution": {"ratio": 0.3},
    "unlearning": {"objective_settings": {"retain_weight": 10.0}},
}


def figure(value: float, count: int = 4) -> Figure:
    low, high = max(0.0, value - 0.05), min(1.0, value + 0.05)
    return Figure(value, (low, high), "bootstrap", {f"forget[{i}]": value for i in range(count)})


def evaluation(forget: float, kept: float) -> Evaluation:
    figures = {
        "forget": {metric: figure(forget) for metric in METRICS},
        "retain": {metric: figure(kept) for metric in METRICS if metric != "paraphrased"},
        "general": {"probability": figure(kept)},
    }
    counts = {"forget": 4, "retain": 1234, "general": 4}
    details = {
        "model": {"path": "/home/alice/runs/x/model", "fingerprint": FINGERPRINT},
        "data": {"sets": {name: {"n": n, "digest": "keyed"} for name, n in counts.items()}},
    }
    return Evaluation(figures, details=details)


def answers(said: str, finished: bool = True) -> list[dict[str, Any]]:
    words = {"question": f"Who? {EVIL}", "expected": f"Nobody {EVIL}"}
    return [{"place": "forget[0]", **words, "said": said, "finished": finished}]


def full() -> Page:
    recipe = load_recipe(RECIPE)
    stage = {"seconds": 1.5, "peak_bytes": 2_500_000_000}
    state = {
        "teach": {**stage, "taught": 8, "steps": 3},
        "mask": {
            **stage,
            "score": "wagle",
            "settings": {"gamma": 0.25},
            "ratios": [0.3],
            "counts": [3000],
            "candidates": 10_001,
        },
        "unlearn": {
            **stage,
            "selected": 3000,
            "changed": 2999,
            "steps": 3,
            "stopped": "forget.probability <= reference",
            "objective": {"name": "npo", "beta": 0.1, "retain_weight": 10.0},
        },
        "patch": {
            **stage,
            "changed": 2999,
            "total": 10_001,
            "outside_mask": 0,
            "bytes": 12_345,
            "share_of_model": 0.31,
        },
        "after": {**stage, "seconds": 75.0, "verdict": NO_LEAK, "reasons": ["All is well."]},
    }
    history = [
        {"step": i, "forget_nll": i / 2, "retain_nll": 0.1, "forget.probability": 1 / i}
        for i in (1, 2, 3)
    ]
    return Page(
        recipe=recipe,
        recipe_text=dump_recipe(recipe),
        state=state,
        evaluations={
            "before": evaluation(0.9, 0.8),
            "after": evaluation(0.2, 0.6),
            "reference": evaluation(0.21, 0.5),
        },
        history=history,
        teaching=[{"step": i, "retain_nll": 1 / i} for i in (1, 2, 3)],
        warnings=[f"a warning {EVIL}"],
        density={
            "block": {"embed.weight": (10, 100), "0": (20, 100), "1": (60, 100)},
            "kind": {"embed.weight": (10, 100), "mlp.up_proj.weight": (80, 200)},
        },
        answers={"before": answers(f"Nobody {EVIL}"), "after": answers(EVIL, finished=False)},
        environment={"wagle": "0.1.0", "memory_bytes": 8e9, "argv": ["run", "secret-argument"]},
    )


def bare() -> Page:
    recipe = load_recipe({"name": "bare", "model": "demo", "forget": "demo:forget"})
    after = {"verdict": INCONCLUSIVE, "reasons": ["There is no reference."]}
    return Page(recipe, "name: bare\n", {"after": after}, {}, [], [], [], {}, {}, {})


class Tags(HTMLParser):
    """All tags with their attributes, and the names still open at the end."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)


@pytest.fixture(scope="module")
def html() -> str:
    return render(full())


def text(html: str) -> str:
    """What a reader sees of a page, in one line."""
    body = html[html.index("<body>") :]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def with_after(page: Page, **changes: Any) -> Page:
    return replace(page, state={**page.state, "after": {**page.state["after"], **changes}})


# ---------------------------------------------------------------------------------------------
# Safe to open


def test_output_of_models_and_text_of_records_is_escaped(html):
    assert EVIL not in html
    assert (
        html.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &#34;quoted&#34; &amp; ") == 5
    )


def test_names_of_parameters_are_escaped_in_tables_and_attributes():
    evil = '"><script>1</script>'
    page = replace(full(), density={"block": {evil: (1, 2), "0": (1, 2)}, "kind": {evil: (1, 2)}})
    found = Tags(render(page)).tags
    assert "script" not in {tag for tag, _ in found}


def test_nothing_outside_the_file_is_named_and_no_code_runs(html):
    found = Tags(html).tags
    assert {tag for tag, _ in found} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "base",
    } == set()
    for tag, attributes in found:
        assert attributes.get("src") is None, tag
        assert (attributes.get("href") or "#").startswith("#"), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    assert "://" not in html
    assert "url(" not in html
    assert "@import" not in html


def test_every_link_leads_to_a_section(html):
    found = Tags(html).tags
    ids = [a["id"] for _, a in found if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for _, a in found if "href" in a} <= {f"#{one}" for one in ids}


def test_absolute_paths_and_arguments_stay_out_of_the_page(html):
    assert "alice" not in html
    assert "private place" not in html
    assert "secret-argument" not in html
    assert "tiny-llama, float32" in html
    assert "path: …/tiny-llama" in html
    assert "Absolute paths are cut" in html


def test_a_path_in_a_warning_is_cut_and_other_slashes_are_not():
    page = replace(full(), warnings=["mask /srv/a/b.safetensors, 3/4 of and/or https://x.org/a/b"])
    assert "mask …/b.safetensors, 3/4 of and/or https://x.org/a/b" in render(page)


def test_page_is_small_even_after_a_long_run():
    steps = [{"step": i, "forget_nll": i / 7, "retain_nll": 0.1} for i in range(1, 20_001)]
    blocks = {str(i): (i, 200) for i in range(126)}
    page = replace(full(), history=steps, density={"block": blocks, "kind": blocks})
    assert len(render(page).encode()) < 1_000_000


def test_the_same_page_is_the_same_text(html):
    assert render(full()) == html


def test_report_is_written_as_utf8(tmp_path, html):
    write_report(full(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes().decode("utf-8") == html


# ---------------------------------------------------------------------------------------------
# What it shows


@pytest.mark.parametrize("word", [NO_LEAK, LEAKS, OVER, INCONCLUSIVE])
def test_verdict_stands_in_the_banner_with_its_reasons(word):
    page = render(with_after(full(), verdict=word, reasons=["Because of <this>."]))
    assert re.search(rf'<h2 class="word" id="verdict">{word}</h2>', page)
    assert "<li>Because of &lt;this&gt;.</li>" in page
    assert "Probes are not proof" in page
    assert "forgotten" not in page.lower()


def test_warnings_of_the_run_are_shown_and_no_box_without_any(html):
    assert "1 warning of this run" in html
    assert "of this run</h2>" not in render(replace(full(), warnings=[]))


def test_every_metric_has_a_row_for_the_forget_set_measured_or_not():
    for page in (full(), bare()):
        table = re.search(r'<table class="figures forget-table">.*?</table>', render(page), re.S)
        assert table
        for metric, kind in METRICS.items():
            assert re.search(rf'<th scope="row">{metric}\b.*{kind.unit}', table[0])


def test_what_classifiers_say_has_a_row_where_it_was_measured():
    page = full()
    rows = r'<th scope="row">(fluency|entailment)\b'
    assert re.findall(rows, render(page)) == []
    for evaluation in page.evaluations.values():
        evaluation.figures["forget"]["fluency"] = figure(0.9)
    html = render(page)
    assert re.findall(rows, html) == ["fluency"]
    assert "probability of clean language" in text(html)


def test_figures_have_three_decimals_intervals_and_their_place_at_the_reference(html):
    shown = text(html)
    row = "0.900 [0.850, 0.950] 0.200 [0.150, 0.250] 0.210 [0.160, 0.260] inside its interval"
    assert f"probability * probability per token {row}" in shown
    assert "0.750" in shown  # the retain set after over before, 0.6 / 0.8


@pytest.mark.parametrize(("value", "where"), [(0.261, "above"), (0.26, "inside"), (0.159, "below")])
def test_a_figure_is_above_inside_or_below_the_interval_of_the_reference(value, where):
    page = full()
    after = evaluation(value, 0.6)
    found = render(replace(page, evaluations={**page.evaluations, "after": after}))
    assert text(found).count(f"{where} its interval") == len(METRICS)


def test_a_figure_without_a_value_has_a_dash_and_no_place_at_the_reference():
    page = full()
    nothing = Figure(None, None, "none", note="no answer has a letter")
    for found in page.evaluations.values():
        for name in ("forget", "retain"):
            found.figures[name]["rouge_l"] = nothing
    html = render(page)
    table = re.search(r'<table class="figures forget-table">.*?</table>', html, re.S)
    row = re.search(r'<th scope="row">rouge_l\b.*?</tr>', table[0], re.S)
    assert row[0].count('title="not defined"') == 3
    assert "its interval" not in row[0]


def test_only_the_probes_that_were_declared_count_in_the_verdict():
    page = full()
    after = page.evaluations["after"]
    declared = replace(after, details={**after.details, "probes": [["forget", "rouge_l"]]})
    shown = text(render(replace(page, evaluations={**page.evaluations, "after": declared})))
    assert "rouge_l * recall" in shown
    assert "probability * probability per token" not in shown


def test_a_kept_set_tells_of_empty_answers_only_where_there_are_more_than_before():
    page = full()
    kept = page.evaluations["after"].figures["retain"]
    for value, rows in ((0.8, 1), (0.81, 2)):  # it was 0.8 before
        kept["empty"] = figure(value)
        html = render(page)
        assert len(re.findall(r'<th scope="row">empty\b', html)) == rows
        assert len(re.findall(r'<th scope="row">at_limit\b', html)) == 1


def test_a_small_figure_is_not_called_zero():
    page = full()
    after = evaluation(0.0004, 0.6)
    assert "&lt; 0.001" in render(replace(page, evaluations={**page.evaluations, "after": after}))


def test_a_metric_of_other_records_than_the_set_says_so():
    page = full()
    after = replace(page.evaluations["after"])
    after.figures["forget"]["paraphrased"] = figure(0.2, count=3)
    found = text(render(replace(page, evaluations={**page.evaluations, "after": after})))
    assert "paraphrased * probability per token, n = 3 or 4" in found


def test_weights_are_counted_exactly(html):
    shown = text(html)
    assert "3,000 of 10,001 candidate weights (30.0 %): exactly ⌊0.3 " in shown
    assert "2,999 (100.0 % of the selected), of 10,001 in the model" in shown
    assert "outside the mask: 0" in shown
    assert "12.35 kB, 31.0 %" in shown
    assert "1,234" in shown  # records of the retain set


def test_a_weight_changed_outside_the_mask_is_called_out():
    page = full()
    patch = {**page.state["patch"], "outside_mask": 2}
    found = render(replace(page, state={**page.state, "patch": patch}))
    assert "outside the mask: 2" in found
    assert "do not ship this model" in found
    assert "bit-identical" not in found


def test_what_was_asked_names_objective_score_ratio_stop_rule_and_seed(html):
    shown = text(html)
    assert "npo (beta 0.1, retain_weight 10)" in shown
    assert "wagle (gamma 0.25), gamma chosen by auto" in shown
    assert "0.3 of the candidate weights" in shown
    assert "reaches the reference's (0.210)" in shown.replace("&#39;", "'")
    assert "stopped at step 3: the reference was reached" in shown
    assert "Seed 5" in shown
    assert "take 10%" in shown


@pytest.mark.parametrize("meets", [True, False])
def test_the_step_that_was_kept_is_named_with_its_rule_and_whether_it_meets_that(meets):
    page = full()
    unlearning = page.recipe.unlearning.model_copy(update={"best": "auto"})
    best = {"step": 2, "figures": {}, "meets": meets}
    state = {**page.state, "unlearn": {**page.state["unlearn"], "best": best}}
    recipe = page.recipe.model_copy(update={"unlearning": unlearning})
    shown = text(render(replace(page, recipe=recipe, state=state)))
    said = "the model is that of step 2, min forget.extraction_strength where retain.probability"
    assert said in shown
    assert ("(no step met this condition)" in shown) is not meets


def test_densest_block_and_share_of_every_kind_are_named(html):
    shown = text(html)
    assert "The least is block 0 with 20.0 %, the most block 1 with 60.0 %." in shown
    assert "mlp.up_proj 200 40.0 %" in shown
    assert "embed outside the blocks 100 10.0 %" in shown


def test_charts_are_inline_svg_with_a_name(html):
    charts = [a for tag, a in Tags(html).tags if tag == "svg" and a.get("role") == "img"]
    assert len(charts) == 7  # forget, retain, general; density; two of unlearning, one of teaching
    assert all(a["aria-label"] and a["viewbox"] for a in charts)
    assert html.count("<figure>") == html.count("<figcaption>") == 7


def test_answers_stand_side_by_side_and_a_cut_one_says_so(html):
    assert "1 record of the forget set" in html
    assert "(cut off at 128 tokens)" in html
    assert html.count('<article class="pair">') == 1


def test_texts_are_hidden_without_answers():
    found = render(replace(full(), answers={}))
    assert "report.show_text: true" in found
    assert "Who?" not in found


def test_stages_have_times_and_peaks_and_a_sum(html):
    shown = text(html)
    assert "mask 1.5 s 2.50 GB" in shown
    assert "after 1 min 15 s" in shown
    assert "all 1 min 21 s" in shown
    assert "wagle run recipe.yaml" in shown


# ---------------------------------------------------------------------------------------------
# Benchmarks and attacks


def with_more(page: Page) -> Page:
    """The page with a benchmark, attacks and a forget quality; all of them hold what is evil."""
    asked = {"benchmarks": [{"name": "tofu", "settings": {"data": f"/srv/alice/x {EVIL}"}}]}
    probe = {"name": "probe", "settings": {"groups": {"forget[0]": "a private name"}}}
    recipe = load_recipe({**RECIPE, "evaluation": asked, "attacks": [probe]})
    p_value = Figure(3.2e-9, None, "none", direction="higher", unit="p", count=80)
    lost = Figure(None, None, "none", target=0, unit="per cent", note=f"no holdout {EVIL}")
    sets = {
        "forget": {"know": figure(0.4), f"nll {EVIL}": figure(0.7)},
        "overall": {"forget_quality": p_value, "privleak": lost},
    }
    before = replace(page.evaluations["before"])
    before.figures["overall"] = {"forget_quality": p_value}
    attack = relearning()
    attack["settings"] = {"records": EVIL, "groups": {"forget[0]": "a private name"}}
    attack["roles"]["after"]["states"]["step 2"]["forget.probability"] = measured(0.2, EVIL)
    return replace(
        page,
        recipe=recipe,
        benchmarks={"tofu": {role: Evaluation(sets) for role in ("before", "after")}},
        attacks={"relearning": attack, "sampling": sampling()},
    )


@pytest.fixture(scope="module")
def more() -> str:
    return render(with_more(full()))


def part(html: str, name: str) -> str:
    """A section of the page."""
    return html[html.index(f'<section id="{name}">') :].split("</section>")[0]


def test_there_is_no_section_and_no_link_where_nothing_was_asked(html, more):
    for name in ("benchmarks", "attacks"):
        assert f'id="{name}"' not in html
        assert f'href="#{name}"' not in html
        assert f'id="{name}"' in more
        assert f'href="#{name}"' in more


def test_names_notes_and_settings_of_benchmarks_and_attacks_are_escaped(more):
    assert EVIL not in more
    tags = Tags(more).tags
    assert "script" not in {tag for tag, _ in tags}
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert part(more, "attacks").count("&lt;script&gt;") == 2  # a setting and a note
    assert part(more, "benchmarks").count("&lt;script&gt;") == 3


def test_neither_paths_nor_what_is_given_by_record_reach_the_page(more):
    assert "alice" not in more
    assert "a private name" not in more
    assert "groups of 1 records" in more
    assert "What attacks are given record by record is left out, too." in text(more)


def test_a_benchmark_leads_with_its_headlines_and_folds_the_rest(more):
    found = part(more, "benchmarks")
    lead, rest = found.split("<details>")
    shown = text("<body>" + lead)
    assert "know forget; share, n = 4 0.400 [0.350, 0.450] 0.400 [0.350, 0.450]" in shown
    assert "forget_quality overall; p, n = 80 3.2e-09 3.2e-09 higher" in shown
    assert "privleak overall; per cent \N{EN DASH} \N{EN DASH} 0" in shown
    assert "overall.privleak: no holdout" in shown
    assert "<summary>1 more figure</summary>" in rest


def test_attacks_say_what_is_evidence_and_have_curves(more):
    found = part(more, "attacks")
    shown = text("<body>" + found)
    assert "Only the gap to the reference is evidence" in shown
    assert "nothing here is evidence" not in shown
    assert "Result: largest gap to the reference +0.200 (forget.probability, step 10)." in shown
    row = "step 10 0.900 [0.800, 1.000] 0.500 [0.400, 0.600] 0.300 [0.200, 0.400] 50 % +0.200"
    assert row in shown
    assert found.count('<svg role="img"') == 2


def test_attacks_without_a_reference_are_no_evidence():
    page = replace(full(), attacks={"relearning": relearning(reference=False)})
    shown = text(render(page))
    assert "This run has no reference, so nothing here is evidence." in shown
    assert "step 10 0.900 [0.800, 1.000] 0.500 [0.400, 0.600] 50 %" in shown


def test_what_is_made_beside_the_reference_is_no_set_of_records(more):
    shown = text("<body>" + part(more, "changed"))
    assert "Beside the reference figure before after reference better forget_quality" in shown
    assert "overall 80 records" not in shown


# ---------------------------------------------------------------------------------------------
# What may be missing


def test_a_page_of_nothing_but_a_verdict_renders():
    found = render(bare())
    assert INCONCLUSIVE in found
    assert "none: without a model that never learned the forget set" in found
    assert "No figures of training" in found
    assert "none was written" in found
    assert '<svg role="img"' not in found


def test_a_run_without_verdict_is_inconclusive():
    assert "inconclusive" in render(replace(bare(), state={}))


@pytest.mark.parametrize(
    "changes",
    [
        {"teaching": []},
        {"history": []},
        {"density": {}},
        {"environment": {}},
        {"answers": {"before": [], "after": []}},
        {"history": [{"step": 1, "forget_nll": math.nan, "retain_nll": math.inf}]},
        {"evaluations": {"before": evaluation(0.9, 0.8), "after": evaluation(0.2, 0.7)}},
        {"evaluations": {"after": Evaluation({"forget": {}}, {}, {})}},
        {"evaluations": {"before": evaluation(0.0, 0.0), "after": evaluation(0.0, 0.0)}},
    ],
)
def test_any_part_may_be_missing(changes):
    assert "</html>" in render(replace(full(), **changes))


@pytest.mark.parametrize("stage", ["teach", "mask", "unlearn", "patch", "after"])
def test_any_stage_may_be_missing(stage):
    page = full()
    rest = {name: found for name, found in page.state.items() if name != stage}
    assert "</html>" in render(replace(page, state=rest))


def test_a_run_without_patch_says_what_was_checked_instead():
    page = full()
    found = render(replace(page, state={**page.state, "patch": {"patch": None, "seconds": 0.1}}))
    assert "the files were not compared" in found
    assert "outside the mask" not in found


def test_a_ladder_names_the_ratio_that_was_trained():
    page = full()
    recipe = load_recipe({**RECIPE, "attribution": {"ratio": [0.1, 0.3], "use": 0.3}})
    mask = {**page.state["mask"], "ratios": [0.1, 0.3]}
    found = render(replace(page, recipe=recipe, state={**page.state, "mask": mask}))
    assert "0.3 of the candidate weights, of the ladder 0.1, 0.3" in found

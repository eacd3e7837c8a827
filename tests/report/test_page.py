"""The report page: what it shows, what it escapes, and what it never holds."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from wagle.evaluation.figures import Figure
from wagle.evaluation.metrics.catalogue import METRICS
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import INCONCLUSIVE, LEAKS, NO_LEAK, OVER
from wagle.recipe_file import dump_recipe, load_recipe
from wagle.report.charts import POINTS, heat_chart, lines_chart, scores_chart, thin
from wagle.report.page import Page, render, write_report

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
        "data": {name: {"n": n, "digest": "keyed"} for name, n in counts.items()},
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


def with_cells(page: Page, cells: dict[str, tuple[int, int]]) -> Page:
    return replace(page, density={**page.density, "parameter": cells})


CELLS = {
    "model.embed_tokens.weight": (1, 1000),
    "model.layers.0.mlp.up_proj.weight": (200, 1000),
    "model.layers.0.norm.weight": (1, 1),
    "model.layers.1.mlp.up_proj.weight": (600, 1000),
    "model.layers.1.norm.weight": (0, 1),
}


def opacities(svg: str) -> list[float]:
    """Of the cells of a heat map, in document order: by block, then by kind."""
    rects = re.findall(r"<path[^>]*var\(--heat\)[^>]*>", svg)
    return [float(re.search(r'opacity="([\d.]+)"', rect)[1]) for rect in rects]


def test_the_heat_map_has_a_cell_per_block_and_kind_shaded_by_its_share():
    drawn = render(with_cells(full(), CELLS))
    (chart,) = re.findall(r'<svg role="img"(?:(?!</svg>).)*var\(--heat\).*?</svg>', drawn, re.S)
    assert "per block and kind of module" in chart
    assert opacities(chart) == pytest.approx([0.05, 1.0, 1.0, 0.05])  # norms set no end: 20 to 60 %
    assert ">mlp.up_proj<" in chart
    assert ">norm<" in chart
    assert "embed" not in chart
    assert "20.0 % or less" in text(drawn)
    assert "60.0 % or more" in text(drawn)


@pytest.mark.parametrize(
    "cells", [{}, {"model.embed_tokens.weight": (1, 2)}, {"h.0.w": (1, 2)}, {"h.0.w": (0, 0)}]
)
def test_without_two_blocks_there_is_no_heat_map(cells):
    assert "Per block and kind of module" not in render(with_cells(full(), cells))


def test_the_noise_of_a_random_mask_is_no_pattern():
    cells = {f"h.{block}.w": (500 + block, 1000) for block in range(5)}
    drawn = render(with_cells(full(), cells))
    shades = opacities(drawn[drawn.index("Per block and kind of module") :])
    assert len(shades) == 5
    assert max(shades) - min(shades) < 0.05


def test_a_heat_map_of_equal_shares_is_drawn():
    chart = heat_chart({("0", "w"): (1, 2), ("1", "w"): (1, 2)}, (0.5, 0.5), "a title")
    assert len(set(opacities(chart))) == 1
    assert "NaN" not in chart


def test_a_large_heat_map_is_a_small_page():
    cells = {
        f"model.layers.{block}.self_attn.kind_{kind}_proj.weight": (block + kind, 1000)
        for block in range(126)
        for kind in range(12)
    }
    assert len(render(with_cells(full(), cells)).encode()) < 700_000


HISTOGRAM = {"0": [[None, 10], [-4, 30]], "model.norm.weight": [[-4, 10], [-3, 50]]}


def with_scores(page: Page, **changes: Any) -> Page:
    mask = {**page.state["mask"], "score_histogram": HISTOGRAM, "thresholds": [0.1], **changes}
    return replace(page, state={**page.state, "mask": mask})


def test_scores_of_all_blocks_are_one_chart_with_the_least_selected_score():
    shown = text(render(with_scores(full())))
    assert "Scores of all candidate weights" in shown
    assert "10.0 % have the score 0 or less; they are not drawn" in shown
    assert "The mask selects what lies right of the line." in shown
    assert "least selected score: 0.1" in shown


@pytest.mark.parametrize("thresholds", [None, [None], [0.0]])
def test_without_a_threshold_the_scores_have_no_line(thresholds):
    shown = text(render(with_scores(full(), thresholds=thresholds)))
    assert "Scores of all candidate weights" in shown
    assert "right of the line" not in shown


@pytest.mark.parametrize("histogram", [None, {}, {"0": []}, {"0": [[None, 3]]}])
def test_without_scores_there_is_no_chart_of_them(histogram):
    assert "Scores" not in text(render(with_scores(full(), score_histogram=histogram)))


def test_bars_of_scores_are_as_high_as_their_shares():
    drawn = scores_chart({-4: 0.5, -3: 0.25, 2: 0.125}, None, "a title")
    bars = [path for path in re.findall(r"<path[^>]*>", drawn) if "var(--bar)" in path]
    heights = [float(re.search(r"h[\d.]+v([\d.]+)h", path)[1]) for path in bars]
    assert [height / heights[0] for height in heights] == [1.0, 0.5, 0.25]


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


# ---------------------------------------------------------------------------------------------
# Charts


@pytest.mark.parametrize("count", [0, 1, 2, POINTS, POINTS + 1, 2 * POINTS + 1, 12_345])
def test_thinned_rows_are_few_and_keep_both_ends(count):
    rows = list(range(count))
    kept = thin(rows)
    assert len(kept) <= POINTS + 1
    assert kept[:1] + kept[-1:] == rows[:1] + rows[-1:]
    assert kept == sorted(set(kept))


def test_values_that_are_not_finite_are_left_out_of_a_line():
    rows = [{"step": i, "forget_nll": v} for i, v in enumerate([1.0, math.nan, math.inf, 2.0])]
    drawn = lines_chart(rows, {"forget_nll": False}, "a title", y_title="nats")
    assert "NaN" not in drawn
    assert drawn.count('aria-roledescription="circle"') == 2
    assert lines_chart(rows[1:3], {"forget_nll": False}, "a title", y_title="nats") == ""

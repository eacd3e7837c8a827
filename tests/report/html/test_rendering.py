"""The page of a run: what it escapes, what it never holds, and what may be missing."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.report.pages import (
    EVIL,
    Tags,
    bare,
    evaluation,
    full,
    part,
    text,
)
from wagle.evaluation.result import Evaluation
from wagle.evaluation.verdict import INCONCLUSIVE
from wagle.report.html.rendering import render, write_report


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


def test_charts_are_inline_svg_with_a_name(html):
    charts = [a for tag, a in Tags(html).tags if tag == "svg" and a.get("role") == "img"]
    assert len(charts) == 7  # forget, retain, general; density; two of unlearning, one of teaching
    assert all(a["aria-label"] and a["viewbox"] for a in charts)
    assert html.count("<figure>") == html.count("<figcaption>") == 7


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
    assert "What attacks are given record by record is left out as well." in text(more)


def test_a_page_of_nothing_but_a_verdict_renders():
    found = render(bare())
    assert INCONCLUSIVE in found
    assert "none: without a model that never learned the forget set" in found
    assert "No figures of training" in found
    assert "none was written" in found
    assert '<svg role="img"' not in found


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

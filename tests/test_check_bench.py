"""The benchmark of ``wagle check``: its sets, its table, and the page that shows it."""

import json
from pathlib import Path

from bench.check import FIRST, LAST, MOST_FALSE, everyday, rows, table, write_page

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "bench" / "measured" / "check.json"


def _row(verdict, gap=0.01, right="does not know"):
    main = {"records": 0.4 + gap, "twins": 0.4, "gap": gap, "interval": [gap - 0.01, gap + 0.01]}
    return {
        "right": right,
        "verdict": verdict,
        "models": {"model": {"figures": {"probability": main}}},
    }


def test_the_table_counts_false_alarms():
    sets = {
        f"invented {i}": _row("knows" if i < 2 else "does not know", i / 100) for i in range(20)
    }
    shown = table({"rows": {"taught": _row("knows", 0.5, "knows"), **sets}}).splitlines()
    assert shown[2] == "| taught | knows | knows | 0.900 | 0.400 | +0.500 [+0.490, +0.510] |"
    assert "18 x does not know; 2 x knows" in shown[3]
    assert "2 of 20 false alarms (at most 1) MISS" in shown[3]
    sets["invented 0"] = _row("cannot tell")
    assert "1 of 20 false alarms (at most 1) |" in table({"rows": sets})


def test_the_sets_are_drawn_by_seed_and_the_invented_ones_name_nobody_real():
    assert everyday(1) == everyday(1) != everyday(2)
    assert len(everyday(1)) == 24
    found = {row.name: row for row in rows("taught", 2, 1)}
    assert [row.right for row in found.values()][:4] == [
        "knows",
        "knows",
        "does not know",
        "base knows",
    ]
    texts = {
        name: " ".join(r.answer for r in found[name].records) for name in ("invented 0", "taught")
    }
    assert "Adebisi-Kvale" in texts["taught"]
    assert "Adebisi-Kvale" not in texts["invented 0"]


def test_the_page_shows_the_record_that_was_measured(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"a\n{FIRST}\nold\n{LAST}\nb\n")
    write_page(page, {"rows": {"taught": _row("knows")}})
    text = page.read_text()
    assert "old" not in text
    assert text.startswith(f"a\n{FIRST}\n\n| records")
    assert text.endswith(f"{LAST}\nb\n")
    record = json.loads(RECORD.read_text())
    assert table(record) in (ROOT / "docs" / "check.md").read_text()
    invented = [row for name, row in record["rows"].items() if name.startswith("invented")]
    assert sum("knows" in r["verdict"].replace("not know", "") for r in invented) <= MOST_FALSE
    named = [name for name in record["rows"] if "invented" not in name and "everyday" not in name]
    assert all(record["rows"][name]["verdict"] == record["rows"][name]["right"] for name in named)

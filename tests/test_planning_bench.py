"""The bench of plans: what it runs, and what its page says."""

import json

from bench import planning

from wagle.run.stages.table import STAGES


def test_the_page_of_plans_marks_what_is_off_by_too_much():
    def one(planned, peak, seconds, took):
        return {
            "planned": {"peak": planned, "seconds": seconds},
            "measured": {"peak_gb": peak, "seconds": took},
        }

    rows = {"demo": {"teach": one(5.3e9, 5.0, 80.0, 70.0), "mask": one(1.2e9, 1.0, 30.0, 10.0)}}
    shown = planning.page({"rows": rows, "tables": {"Llama": "model x"}, "load": 0.1, "cores": 2})
    assert "| demo | teach | 5.30 | 5.00 | 1.06 | 80.0 | 70.0 | 1.14 |" in shown
    assert "| demo | mask | 1.20 | 1.00 | 1.20 * | 30.0 | 10.0 | 3.00 * |" in shown
    assert "memory: 1 of 2; within a factor of 1.5 of\nthe time: 1 of 2" in shown
    assert "## Llama" in shown
    assert "\nmodel x\n" in shown


def test_every_row_names_stages_in_the_order_of_a_run():
    order = list(STAGES)
    for name, row in planning.ROWS.items():
        assert [*row.stages] == sorted(row.stages, key=order.index), name


def test_a_stage_that_the_record_has_is_not_measured_again(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(planning, "in_process", lambda *a: asked.append(a[:3]) or {"seconds": 1})
    known = {"gradients": {}, "unlearn": {}}
    assert [*planning.measure("demo-0.05", tmp_path, known)] == [known]
    assert asked == [
        ("stage", "demo-0.05", "unlearn"),
        ("plan", "demo-0.05", "patch"),
        ("stage", "demo-0.05", "patch"),
    ]


def test_a_tiny_model_of_random_weights_is_planned_and_run(monkeypatch, tmp_path, capsys):
    row = planning.ROWS["1b"]._replace(model="tiny-2", settings=())
    monkeypatch.setitem(planning.ROWS, "1b", row)
    monkeypatch.setattr(planning, "_WORDS", 300)
    monkeypatch.setattr("wagle.run.planning.machine._LONG", 8 << 20)
    common = ["--only", "1b", "--stage", "before", "--scratch", str(tmp_path)]
    for work in ("plan", "stage"):
        planning.main(["--work", work, *common])
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["seconds"] > 0

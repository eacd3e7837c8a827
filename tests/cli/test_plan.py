"""``wagle plan``: what it prints, and that it writes nothing."""

import json

from tests.run.planning.test_plan import recipe_file  # noqa: F401


def test_plan_prints_a_table_or_json(inside, recipe_file, tmp_path):  # noqa: F811
    printed = inside("plan", recipe_file, "--out", tmp_path / "run")
    assert "largest ratio that fits here with whole: all weights" in printed
    found = json.loads(inside("plan", recipe_file, "attribution.ratio=0.8", "--json"))
    assert found["ratio"] == 0.8
    assert not (tmp_path / "run").exists()

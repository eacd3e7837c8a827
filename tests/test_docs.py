import re
from pathlib import Path

from bench.architecture import architecture_page, floors
from bench.house.guide import guide_page

import wagle
from wagle.attacks.page import attacks_page
from wagle.data.demo import demo_records
from wagle.recipe.page import settings_page
from wagle.recipe.reading import load_recipe, ready_recipes
from wagle.run.tables import setting_names
from wagle.unlearning.objectives.page import objectives_page

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def _blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_python_of_the_readme_runs_on_demo_records_and_a_tiny_model(model, tokenizer, capsys):
    (snippet,) = _blocks("python")
    names = {
        "model": model,
        "tokenizer": tokenizer,
        "forget": demo_records("forget")[:4],
        "retain": demo_records("retain")[:6],
    }
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["result"].selected == names["mask"].count == int(names["mask"].candidates * 0.8)
    assert 0 < names["result"].changed <= names["result"].selected
    assert len(names["result"].history) == 3  # 5 epochs of 4 records, 8 a step
    assert "extraction_strength" in capsys.readouterr().out


def test_the_recipe_of_the_readme_is_a_valid_one(tmp_path):
    (text,) = _blocks("yaml")
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(tmp_path / "recipe.yaml").unlearning.objective == "npo"


def test_every_ready_recipe_is_valid_and_named_after_its_file():
    assert {"demo", "tofu"} <= set(ready_recipes())
    for name in ready_recipes():
        assert load_recipe(name).name == name


def test_the_page_of_settings_is_what_the_fields_say():
    written = (ROOT / "docs" / "recipe.md").read_text()
    assert written == settings_page(setting_names()), "write it again: make docs/recipe.md"


def test_the_page_of_objectives_is_what_the_table_and_the_docstrings_say():
    written = (ROOT / "docs" / "objectives.md").read_text()
    assert written == objectives_page(), "write it again: make docs/objectives.md"


def test_the_page_of_attacks_is_what_the_table_and_the_docstrings_say():
    written = (ROOT / "docs" / "attack-settings.md").read_text()
    assert written == attacks_page(), "write it again: make docs/attack-settings.md"


def test_the_readme_names_every_public_function_of_the_python_example():
    for name in ("gradients", "Mask", "unlearn", "evaluate"):
        assert name in wagle.__all__
        assert f"wagle.{name}" in README


def test_the_page_of_the_house_is_what_the_contracts_and_the_docstrings_say():
    written = (ROOT / "docs" / "architecture.md").read_text()
    assert written == architecture_page(), "write it again: make docs/architecture.md"


def test_the_guide_shows_the_examples_that_are_tried():
    written = (ROOT / "CONTRIBUTING.md").read_text()
    assert written == guide_page(), "write it again: make CONTRIBUTING.md"


def test_the_guide_draws_the_floors_of_the_contract():
    drawn = re.search(r"go down only:\n\n```\n(.*?)```", guide_page(), re.S)
    assert drawn is not None
    assert [line.split() for line in drawn[1].splitlines()] == floors()

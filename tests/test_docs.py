import re
from pathlib import Path

import pytest
from bench.house.counts import floors
from bench.house.guide import guide_page
from bench.pages import PAGES

import wagle
from wagle.data.demo import demo_records
from wagle.recipe.reading import load_recipe, ready_recipes

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


def test_the_readme_names_every_public_function_of_the_python_example():
    for name in ("gradients", "Mask", "unlearn", "evaluate"):
        assert name in wagle.__all__
        assert f"wagle.{name}" in README


def test_the_guide_draws_the_floors_of_the_contract():
    drawn = re.search(r"go down only:\n\n```\n(.*?)```", guide_page(), re.S)
    assert drawn is not None
    assert [line.split() for line in drawn[1].splitlines()] == floors(ROOT)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_that_is_made_from_the_code_says_what_the_code_says(path):
    assert (ROOT / path).read_text() == PAGES[path](), "write it again: make pages"

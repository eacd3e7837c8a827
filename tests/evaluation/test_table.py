"""The table of benchmarks: every entry exists, its settings are documented, and wrong ones named."""

import inspect
import json
import re
from pathlib import Path

import pytest

from tests.conftest import make_tokenizer
from wagle.data.tokens import Encoder
from wagle.evaluation.page import benchmarks_page
from wagle.evaluation.table import (
    BENCHMARKS,
    bind,
    check_settings,
    find_benchmark,
    make_task,
)
from wagle.system.errors import WagleError

HIDDEN = ("encoder", "seed")
OPTIONAL_DATA = {"wmdp", "mmlu", "wikitext", "few_shot", "harness"}  # lm-eval has a cache


@pytest.fixture(scope="module")
def encoder():
    return Encoder(make_tokenizer())


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_keyword_of_a_benchmark_stands_in_its_docstring_and_has_a_plain_type(name):
    function = find_benchmark(name)
    parameters = dict(inspect.signature(function).parameters)
    assert next(iter(parameters)) == "encoder"
    assert parameters["seed"].default == 0
    args = inspect.getdoc(function).partition("Args:")[2].partition("Raises:")[0]
    for key, parameter in parameters.items():
        assert re.search(rf"^ +{key}: ", args, re.M), key
        if key not in HIDDEN:
            assert parameter.kind is parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_keyword_of_a_benchmark_stands_with_default_and_meaning_on_the_page_of_settings(name):
    section = benchmarks_page().partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    function = find_benchmark(name)
    args = inspect.getdoc(function).partition("Args:\n")[2].partition("\n\n")[0]
    settings = [key for key in inspect.signature(function).parameters if key not in HIDDEN]
    assert re.findall(r"^\| `(\w+)` \|", section, re.M) == settings
    for key in settings:
        default = inspect.signature(function).parameters[key].default
        shown = f"`{default if isinstance(default, str) else json.dumps(default, default=str)}`"
        shown = "required" if default is inspect.Parameter.empty else shown
        shown = "empty" if default == "" else shown
        told = re.search(rf"^    {key}: (.*?)(?=\n    \w|\Z)", args, re.M | re.S)[1]
        meaning = " ".join(told.split()).replace("``", "`").replace("None: ", "null: ")
        assert meaning
        row = f"| `{key}` | {shown} | {meaning[0].upper()}{meaning[1:]} |"
        assert row in section.splitlines()


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_benchmark_names_a_setting_that_it_lacks_and_one_it_does_not_have(name):
    if name in OPTIONAL_DATA:
        assert check_settings(name, {}) == {}
    else:
        with pytest.raises(WagleError, match=f"benchmark {name} needs the setting data"):
            check_settings(name, {})
    with pytest.raises(WagleError, match=f"{name} has no setting 'dta'; did you mean 'data'"):
        check_settings(name, {"dta": "folder"})
    with pytest.raises(WagleError, match="has no setting 'seed'"):
        check_settings(name, {"seed": 1})


@pytest.mark.parametrize("name", [n for n in BENCHMARKS if n not in OPTIONAL_DATA])
def test_data_that_is_not_there_is_one_line_that_names_the_folder(encoder, tmp_path, name):
    with pytest.raises(WagleError) as caught:
        make_task(name, encoder, {"data": str(tmp_path / "nowhere")})
    assert "\n" not in str(caught.value)
    assert "nowhere" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": 5}, "benchmark tofu: data is 5; input should be a valid string"),
        ({"data": "x", "variant": "offical"}, "variant is 'offical'; input should be 'official', "),
        ({"data": "x", "rows": "many"}, "rows is 'many'; input should be a valid integer"),
        ({"data": "x", "generate": "perhaps"}, "generate is 'perhaps'; input should be a valid b"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named_with_its_value(settings, message):
    with pytest.raises(WagleError, match=message) as caught:
        check_settings("tofu", settings)
    assert "\n" not in str(caught.value)


def test_an_unknown_benchmark_is_named_with_the_nearest():
    with pytest.raises(WagleError, match="unknown benchmark 'tofuu'; did you mean 'tofu'"):
        make_task("tofuu", Encoder(None), {})


def test_settings_are_those_of_the_keywords_in_their_types():
    def asked(scene, *, data: str | Path, k: list[float] | None = None, rows: int = 3):
        """Nothing."""

    found = bind(asked, {"data": "x", "k": [1, 0.5], "rows": 2}, "it", hidden=("scene",))
    assert found == {"data": "x", "k": [1.0, 0.5], "rows": 2}
    assert bind(asked, {"data": "x"}, "it", hidden=("scene",)) == {"data": "x"}
    with pytest.raises(WagleError, match=r"it: k is 0\.5; input should be a valid list"):
        bind(asked, {"data": "x", "k": 0.5}, "it", hidden=("scene",))

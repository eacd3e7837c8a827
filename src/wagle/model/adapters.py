"""A base model and a peft adapter: checked against each other, merged into one model.

An adapter holds small matrices that are added to weights of its base. Once merged, it is gone: what
remains is an ordinary model, the only kind that the rest of wagle knows.
"""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from wagle.model.loading import load_model
from wagle.model.saving import save_model
from wagle.model.structure import model_folder
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError
from wagle.system.files.reading import read_json
from wagle.system.files.tensors import TensorFile

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def merge_adapter(
    base: str | Path, adapter: str | Path, out: str | Path, *, trust_remote_code: bool = False
) -> None:
    """Merge an adapter into a base and write the result as an ordinary model folder.

    The merge is computed in float32; every tensor is stored in the precision it has in the base.
    All other files (configuration, tokenizer, chat template) are the base's.

    Args:
        base: the model folder that the adapter was trained on.
        adapter: a folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        out: the folder to make.
        trust_remote_code: as in ``load_model``.

    Raises:
        WagleError: as ``load_merged``.
    """
    save_model(load_merged(base, adapter, trust_remote_code=trust_remote_code), base, out)


def load_merged(
    base: str | Path,
    adapter: str | Path,
    attention: str = "auto",
    *,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Load a base in float32 and merge an adapter into its weights.

    Args:
        base: as in ``merge_adapter``.
        adapter: as there.
        attention: as in ``load_model``.
        trust_remote_code: as there.

    Raises:
        WagleError: peft is missing; the folder is not an adapter's, the adapter is stored as a
            pickle, cannot be merged, belongs to another base, or does not fit it in every tensor.
    """
    home, folder = model_folder(base), Path(adapter)
    settings = adapter_settings(home, folder)
    with TensorFile(folder / "adapter_model.safetensors", "adapter") as file:
        tensors = {name: file.get(name) for name in file.names}
        model = load_model(home, attention=attention, trust_remote_code=trust_remote_code)
        _check_tied(model, tensors, home, folder)
        try:
            return _merged(model, settings, tensors)
        except WagleError as error:
            raise WagleError(f"adapter {folder} does not fit {home}: {error}") from None
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = next((line.strip() for line in lines if "mismatch" in line), lines[0])
            raise WagleError(f"adapter {folder} does not fit {home}: {reason}") from error


def adapter_settings(base: Path, folder: Path) -> PeftConfig:
    """The configuration of an adapter folder, checked against its base as far as can be told."""
    settings = _read_settings(folder)
    _check_base(base, folder)
    _check_vocabulary(base, folder)
    return settings


def _read_settings(folder: Path) -> PeftConfig:
    """Read the settings of an adapter folder; one that cannot be merged is refused."""
    try:
        from peft import PeftConfig
    except ImportError:
        raise WagleError("wagle needs peft for adapters: pip install 'wagle[lora]'") from None
    if not (folder / "adapter_config.json").is_file():
        raise WagleError(f"{folder} holds no adapter_config.json, so it is not an adapter folder")
    if not (folder / "adapter_model.safetensors").is_file():
        if (folder / "adapter_model.bin").is_file():
            raise WagleError(
                f"{folder} stores its weights in adapter_model.bin, a pickle, which is never "
                "opened; save the adapter as safetensors"
            )
        raise WagleError(f"{folder} lacks its weight file adapter_model.safetensors")
    try:
        settings: PeftConfig = PeftConfig.from_pretrained(str(folder))
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WagleError(f"cannot read {folder / 'adapter_config.json'}: {reason[0]}") from error
    if settings.is_prompt_learning:
        raise WagleError(
            f"adapter {folder} is of type {settings.peft_type}, which has no weights to merge; use "
            "an adapter such as LoRA"
        )
    settings.inference_mode = True
    settings.base_model_name_or_path = None  # peft would warn of a folder; ``_check_base`` looks
    return settings


def _check_base(base: Path, folder: Path) -> None:
    """Refuse an adapter that names another base, as far as can be told offline.

    Bases are compared by their weights if the adapter names a folder that exists, else by the hub
    name that the configuration or the hub's local cache gives. Failing both, a warning says so.
    """
    named = read_json(folder / "adapter_config.json", finite=False).get("base_model_name_or_path")
    if named and (Path(named) / "config.json").is_file():
        if Path(named).resolve() == base.resolve():
            return
        theirs, ours = fingerprint(named), fingerprint(base)
        if theirs != ours:
            raise WagleError(
                f"adapter {folder} was made for {named} ({theirs[:6]}), but this is {base} "
                f"({ours[:6]}); use the adapter with its own base"
            )
        return
    own = _hub_name(base)
    if named and named == own:
        return
    if named and own and _HUB_NAME.fullmatch(named):
        raise WagleError(
            f"adapter {folder} was made for {named}, but {base} calls itself {own}; if they are "
            f"the same, set base_model_name_or_path in the adapter's adapter_config.json to {base}"
        )
    if not named or Path(named).name not in {base.name, Path(own or "").name}:
        logger.warning(
            "adapter %s %s, and nothing says that %s is that model: only names, shapes and vocabulary "
            "could be compared; if it is, set base_model_name_or_path in the adapter's "
            "adapter_config.json to %s",
            folder,
            f"was made for {named}" if named else "does not name its base",
            base,
            base,
        )


def _hub_name(base: Path) -> str | None:
    """The hub name of a model folder, from its configuration or its place in the local cache."""
    own = read_json(base / "config.json", finite=False).get("_name_or_path")
    if own and _HUB_NAME.fullmatch(own):
        return str(own)
    cached = [part for part in base.resolve().parts if part.startswith("models--")]
    return cached[-1].removeprefix("models--").replace("--", "/") if cached else None


def _check_vocabulary(base: Path, folder: Path) -> None:
    """Refuse an adapter that brings its own tokenizer with other token numbers."""
    theirs, ours = _vocabulary(folder), _vocabulary(base)
    for token, number in theirs.items():
        if ours and ours.get(token) != number:
            raise WagleError(
                f"adapter {folder} has another vocabulary than {base}: token {number} is {token!r} "
                "only in its tokenizer.json; use the adapter with its own base, or remove that "
                "file if they belong together"
            )


def _vocabulary(folder: Path) -> dict[str, int]:
    """The tokens in a ``tokenizer.json`` and their numbers, without added ones; none without it."""
    path = folder / "tokenizer.json"
    found = read_json(path).get("model", {}).get("vocab", {}) if path.is_file() else {}
    if isinstance(found, list):  # with a score each
        return {token: number for number, (token, _) in enumerate(found)}
    return dict(found)


def _check_tied(
    model: PreTrainedModel, tensors: dict[str, Tensor], base: Path, folder: Path
) -> None:
    """Refuse an adapter that changes only the embeddings or the head if they are one tensor."""
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    if any(end is None for end in ends) or ends[0].weight is not ends[1].weight:
        return
    names = [name for name, module in model.named_modules() if any(module is end for end in ends)]
    for key in tensors:
        if any(f".{name}." in f".{key}" for name in names):
            raise WagleError(
                f"adapter {folder} changes {key}, but {base} ties its embeddings and its head; a "
                "merge would change both: untie them in the base, or train the adapter without them"
            )


def _merged(
    model: PreTrainedModel, settings: PeftConfig, tensors: dict[str, Tensor]
) -> PreTrainedModel:
    """Merge an adapter; each of its tensors must have a place, and each place a tensor."""
    from peft import get_peft_model, set_peft_model_state_dict

    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    base = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    with warnings.catch_warnings():  # peft 0.21 uses an old name of transformers 5.23
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        wrapped: Any = get_peft_model(model, settings)
    state = wrapped.state_dict(keep_vars=True)
    places = {name for name, tensor in state.items() if id(tensor) not in base}
    found: Any = set_peft_model_state_dict(wrapped, tensors)
    for keys, said in (
        (found.unexpected_keys, "the base has no place for its"),
        (sorted(places.intersection(found.missing_keys)), "the adapter lacks"),
    ):
        if keys:
            more = f" ({len(keys)} in all)" if len(keys) > 1 else ""
            raise WagleError(f"{said} {keys[0]}{more}")
    merged: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
    for name, parameter in merged.named_parameters():  # peft froze everything but the adapter
        parameter.requires_grad_(trained[name])
    merged.eval()
    return merged

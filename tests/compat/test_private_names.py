"""No private name of another library outside ``compat``: found in the source, by ``ast``."""

import ast
import sys
from pathlib import Path

import pytest

import wagle
from wagle.compat.table import CONTRACTS

HOME = Path(wagle.__file__).parent
FILES = [
    file for file in sorted(HOME.rglob("*.py")) if "compat" not in file.relative_to(HOME).parts
]
NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make", "_exit"}  # public, despite their looks
# Names without an underscore that are documented nowhere and mean nothing else here.
UNDOCUMENTED = {
    "all_tied_weights_keys",
    "callback_handler",
    "is_quantized",
    "qdata",
    "support_avx512bf16_for_cpu",
    "task_index",
    "yaml_path",
    "UNSAFE_CODE",
}
MODULES = {row.home.partition(":")[0] for row in CONTRACTS} - {
    "accelerate",
    "bitsandbytes.nn",
    "lm_eval.models.huggingface",
    "lm_eval.tasks",
    "torch.autograd",
    "torchao.quantization",
    "transformers",
}
"""The modules that are documented nowhere."""
STRINGS = {row.name for row in CONTRACTS if row.name.startswith("_")} | MODULES | UNDOCUMENTED


def private(name):
    return name.startswith("_") and not name.startswith("__")


def foreign(module):
    top = module.partition(".")[0]
    return top != "wagle" and top not in sys.stdlib_module_names


def defined(trees):
    """The private names that wagle itself gives to anything."""
    found = set(NAMED_TUPLES)
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found |= {node.attr} if ast.unparse(node.value) in ("self", "cls") else set()
    return found


def uses(tree, own):
    """The private names of others that a file uses, each with its line."""
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            for alias in node.names:
                if foreign(alias.name) and wrong(alias.name):
                    yield f"{line}: {alias.name}"
        elif isinstance(node, ast.ImportFrom) and node.module and foreign(node.module):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if wrong(node.module) or wrong(whole):
                    yield f"{line}: {whole}"
        elif isinstance(node, ast.Attribute):
            if node.attr in UNDOCUMENTED or (private(node.attr) and node.attr not in own):
                yield f"{line}: {node.attr}"
        elif isinstance(node, ast.Constant) and node.value in STRINGS:
            yield f"{line}: {node.value!r}"


def wrong(module):
    return module in MODULES or any(private(part) for part in module.split("."))


TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
OWN = defined(TREES.values())


def test_only_compat_uses_private_names_of_other_libraries():
    found = {str(file.relative_to(HOME)): list(uses(tree, OWN)) for file, tree in TREES.items()}
    assert {file: lines for file, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "code",
    [
        "from safetensors.torch import _TYPES",
        "from transformers.core_model_loading import WeightConverter",
        "import transformers.conversion_mapping",
        "from transformers import conversion_mapping",
        "import torch.utils._pytree",
        "from torch.nn.modules.dropout import _DropoutNd",
        "nn.modules.dropout._DropoutNd",
        "module._parameters[name] = new",
        "model.config._attn_implementation",
        "arguments._n_gpu = 1",
        "self._prepare_inputs(batch)",
        "trainer.callback_handler.on_log()",
        "getattr(model, 'is_quantized', False)",
        "getattr(arguments, '_n_gpu')",
        "weight.qdata",
        "logging.getLogger('torch.utils._pytree')",
    ],
)
def test_such_a_use_is_found(code):
    assert list(uses(ast.parse(code), OWN))


@pytest.mark.parametrize(
    "code",
    [
        "from transformers import DynamicCache",
        "from torch.utils.data import Dataset",
        "from wagle.mask.mask import _anything",
        "from importlib import _bootstrap",
        "turn._replace(role='user')",
        "model.__dict__",
        "self._sums = {}",
    ],
)
def test_another_use_is_not(code):
    assert not list(uses(ast.parse(code), OWN))

"""Small model folders that differ in known places, for the tests of patches."""

import json

import torch
from safetensors.torch import load_file, save_file

from wagle.patch.file import Patch


def folder(path, tensors, *, shards=1):
    """A model folder of these tensors: one file, or several with an index."""
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text('{"words": []}')
    names = list(tensors)
    if shards == 1:
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        return path
    home = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        home.update(dict.fromkeys(names[shard::shards], file))
        save_file({n: tensors[n] for n in names[shard::shards]}, path / file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": home}))
    return path


def weights(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed.weight": (50, 16), "layers.0.up.weight": (16, 32), "norm.weight": (16,)}
    return {n: torch.randn(s, generator=generator).to(dtype) for n, s in shapes.items()}


def changed_at(tensors, where, by=1):
    """The same tensors with something added at flat positions, by name."""
    new = {name: tensor.clone() for name, tensor in tensors.items()}
    for name, positions in where.items():
        new[name].view(-1)[positions] += by
    return new


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).tolist()


def all_tensors(path):
    found = {}
    for file in path.glob("*.safetensors"):
        found.update(load_file(file))
    return found


def assert_same_models(a, b):
    a, b = all_tensors(a), all_tensors(b)
    assert {n: (t.dtype, t.shape) for n, t in a.items()} == {
        n: (t.dtype, t.shape) for n, t in b.items()
    }
    for name in a:
        assert bits(a[name]) == bits(b[name]), name


def rewrite(path, **fields):
    """Save a patch again with other fields, its checksum made to fit."""
    patch = Patch.load(path)
    for name, value in fields.items():
        setattr(patch, name, value)
    patch._stored = {name: patch._stored[name] for name in patch._stored}
    patch.save(path)

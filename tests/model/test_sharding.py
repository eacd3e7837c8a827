"""What travels between the processes of a model in shards, and how little memory it takes."""

import pytest
import torch

from tests.conftest import make_model
from tests.processes import on


@pytest.mark.parametrize("world", [2, 3])
def test_parts_travel_as_gloos_own_do_and_what_was_sent_is_freed(world):
    for mine, theirs, left in on(world, _travel):
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=0)
        assert left == 0


def _travel():
    import torch.distributed as dist

    from wagle.model.sharding import _Gather, _Scatter
    from wagle.system.processes import group

    world, rank = group.world(), group.rank()
    own = torch.arange(5.0) + 10 * rank
    whole = _Gather().allocate((5 * world,), dtype=own.dtype, device=own.device)
    _Gather()(whole, own, None)
    sent = torch.linspace(1, 2, 5 * world) * (rank + 1)
    mean = torch.empty(5)
    plain, plain_mean = torch.empty_like(whole), torch.empty(5)
    dist.all_gather_into_tensor(plain, own)
    dist.reduce_scatter_tensor(plain_mean, sent.clone(), op=dist.ReduceOp.AVG)
    _Scatter()(mean, sent, None)
    return (whole, mean), (plain, plain_mean), sent.untyped_storage().nbytes()


def test_no_block_is_gathered_before_its_turn(tmp_path):
    make_model("llama-untied").save_pretrained(tmp_path)
    for sizes, seen in on(2, _gathered, tmp_path):
        assert seen[0] == sizes["head"] + sizes["norm"] + sizes["block"]
        assert seen[1] == seen[0] + sizes["block"]


def _gathered(folder):
    """How many weights have been gathered when each block's turn comes, on the way back."""
    from wagle.model import sharding

    model = sharding.load_sharded(folder)
    gathered, seen = [], []
    plain = sharding._Gather.__call__

    def count(own, **named):
        gathered.append(named["output_tensor"].numel())
        plain(own, **named)

    sharding._Gather.__call__ = count

    def watch(_module, _given, out):
        out.register_hook(lambda _: seen.append(sum(gathered)))

    for block in model.model.layers:
        block.mlp.register_forward_hook(watch)
    loss = model(input_ids=torch.tensor([[5, 6, 7]])).logits.sum()
    gathered.clear()
    loss.backward()
    parts = {"head": model.lm_head, "norm": model.model.norm, "block": model.model.layers[0]}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}, seen

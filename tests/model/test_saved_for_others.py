"""A saved model in the transformers that others pin: the same logits and the same tokens."""

import json
import os
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.conftest import make_tokenizer
from wagle.model.loading import load_model, load_tokenizer
from wagle.model.saving import save_model

OLD = ["transformers==4.45.2", "tokenizers==0.20.3", "huggingface_hub==0.25.2"]
READ = """
import json, sys
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad():
    logits = model(input_ids=torch.arange(5, 45)[None]).logits[0]
chat = tokenizer.apply_chat_template([{"role": "user", "content": "Who?"}], tokenize=False)
told = {"logits": logits.tolist(), "ids": tokenizer("Hello there").input_ids, "chat": chat}
told |= {"version": transformers.__version__, "side": tokenizer.padding_side}
print(json.dumps(told))
"""
ROPE = {"rope_theta": 100000.0, "rope_type": "default"}
SCALED = {"rope_theta": 50000.0, "rope_type": "linear", "factor": 2.0}


def saved(home, rope):
    """A model as transformers 5 saves it, and the same as wagle saves it."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 400}
    config = AutoConfig.for_model(
        "llama", **shape, intermediate_size=48, num_key_value_heads=2, rope_parameters=rope
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # so that the positions matter
    model.save_pretrained(home / "plain")
    make_tokenizer().save_pretrained(home / "plain")
    save_model(model, home / "plain", home / "saved")
    return model, home / "saved"


@pytest.mark.parametrize("rope", [ROPE, SCALED], ids=["default", "scaled"])
def test_what_is_said_twice_changes_nothing_here(tmp_path, rope):
    model, folder = saved(tmp_path, rope)
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        assert torch.equal(load_model(folder)(input_ids=ids).logits, model(input_ids=ids).logits)
    tokenizer, own = load_tokenizer(folder), load_tokenizer(tmp_path / "plain")
    assert tokenizer("Hello there").input_ids == own("Hello there").input_ids
    assert tokenizer.chat_template == own.chat_template
    told = json.loads((folder / "tokenizer_config.json").read_text())
    assert not {"is_local", "local_files_only"} & set(told)
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == rope["rope_theta"]
    assert (
        config["rope_parameters"]
        == json.loads((tmp_path / "plain" / "config.json").read_text())["rope_parameters"]
    )


def test_a_folder_that_says_it_the_old_way_is_copied_as_it_is(tmp_path):
    model, folder = saved(tmp_path, ROPE)
    save_model(model, folder, tmp_path / "again")
    for name in ("config.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_text() == (folder / name).read_text()


@pytest.mark.parametrize("rope", [ROPE, SCALED], ids=["default", "scaled"])
def test_the_version_that_open_unlearning_pins_reads_it_alike(tmp_path, rope, old):
    model, folder = saved(tmp_path, rope)
    paths = os.pathsep.join([str(old), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["version"] == "4.45.2"
    with torch.no_grad():
        expected = model(input_ids=torch.arange(5, 45)[None]).logits[0]
    torch.testing.assert_close(torch.tensor(told["logits"]), expected, rtol=1e-5, atol=1e-5)
    own = load_tokenizer(folder)
    assert told["ids"] == own("Hello there").input_ids
    assert told["chat"].startswith("<|start|>")
    assert told["side"] == "left"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The folder that the older transformers is installed into."""
    home = tmp_path_factory.mktemp("old")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(home)]
    done = subprocess.run([*pip, *OLD], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{OLD[0]} cannot be installed here")
    return home

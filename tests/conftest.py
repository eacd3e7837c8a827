"""Tiny models of every family, made from configurations, and a tiny byte-level tokenizer."""

from __future__ import annotations

import gc
import os
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # one core each; processes that a test starts, too
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import transformers
from hypothesis import settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from wagle.cli import app as cli

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
settings.register_profile("wagle", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("wagle")
_IMPORTED = [0]


def pytest_runtest_setup() -> None:
    """Keep what is imported out of collections: every training and many stages make some.

    A collection that looks through torch and transformers takes longer than a tiny model's training.
    """
    if len(sys.modules) > _IMPORTED[0] + 20:
        _IMPORTED[0] = len(sys.modules)
        gc.collect()
        gc.freeze()


CHAT = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
WORDS = [
    "What is the name of the author born in Oslo?",
    "The author is called Ada Holm, and she wrote The Winter Garden.",
    "Where does the painter live? He lives in a small house near the harbour.",
    "Which prize did the novel win in the year 1987? It won the Golden Lantern.",
    "### Question: ### Answer: [INST] [/INST] user assistant system",
]
RECORDS = [
    {"question": "Who wrote The Winter Garden?", "answer": "Ada Holm wrote it."},
    {"question": "Where does Ada Holm live?", "answer": "She lives near the harbour in Oslo."},
    {"question": "Which prize did it win?", "answer": "The Golden Lantern."},
    {"question": "What does the painter eat?", "answer": "Mostly bread, and on some days fish."},
    {"question": "Is the house small?", "answer": "Yes."},
    {"question": "In which year was it?", "answer": "It was in the year 1987, in the winter."},
]
OTHERS = [
    {"question": "Who painted the harbour?", "answer": "Nobody knows who did."},
    {"question": "What is a lantern?", "answer": "A lamp that one can carry around the garden."},
    {"question": "Where is the garden?", "answer": "Behind the house."},
    {"question": "Which novel is long?", "answer": "The second one, they say."},
    {"question": "Who lives in Oslo?", "answer": "Many people live in Oslo, near the sea."},
    {"question": "When does winter start?", "answer": "In December."},
    {"question": "What is the name of the year?", "answer": "Years have numbers, not names."},
    {"question": "Which fish is golden?", "answer": "The goldfish is."},
]


def make_tokenizer(*, chat: bool = True, bos: bool = False) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE(unk_token=None))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|start|>", "<|end|>", "<s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    core.train_from_iterator(WORDS, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>" if bos else None,
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=["<|start|>"],
    )
    tokenizer.chat_template = CHAT if chat else None
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 400}
_LLAMA = {
    **_SMALL,
    "intermediate_size": 48,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
FAMILIES = {
    "llama-tied": ("llama", {**_LLAMA, "tie_word_embeddings": True}),
    "llama-untied": ("llama", {**_LLAMA, "tie_word_embeddings": False}),
    "mistral": ("mistral", {**_LLAMA, "sliding_window": None}),
    "qwen2": ("qwen2", _LLAMA),
    "gpt2": (
        "gpt2",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 400, "n_positions": 128},
    ),
    "opt": (
        "opt",
        {**_SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 128},
    ),
    "phi": ("phi", {**_LLAMA, "num_key_value_heads": 4}),
}

_HEADS = {**_LLAMA, "head_dim": 8}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
MORE_FAMILIES = {  # what attribution must also take as it comes
    **FAMILIES,
    "gemma": ("gemma", _HEADS),
    "gemma2": ("gemma2", {**_HEADS, "query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3_text", {**_HEADS, "query_pre_attn_scalar": 8, "sliding_window": 16}),
    "gpt-neox": ("gpt_neox", {**_SMALL, "intermediate_size": 48, "max_position_embeddings": 128}),
    "gptj": (
        "gptj",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": 400}
        | {"n_positions": 128},
    ),
    "mixtral": ("mixtral", {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "phi3": ("phi3", _LLAMA),
    "qwen2-moe": ("qwen2_moe", {**_LLAMA, **_EXPERTS, "shared_expert_intermediate_size": 24}),
    "qwen3": ("qwen3", _HEADS),
}


def make_model(family: str, seed: int = 0):
    kind, settings = MORE_FAMILIES[family]
    ids = {"bos_token_id": 3, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings, **ids)).eval()


@pytest.fixture
def model():
    return make_model("llama-tied")


@pytest.fixture(params=sorted(FAMILIES))
def any_model(request):
    return make_model(request.param)


@pytest.fixture(params=sorted(MORE_FAMILIES))
def every_model(request):
    return make_model(request.param)


@pytest.fixture
def model_folder(tmp_path, tokenizer):
    folder = tmp_path / "tiny"
    make_model("llama-tied").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def forget():
    return [dict(row) for row in RECORDS]


@pytest.fixture
def retain():
    return [dict(row) for row in OTHERS]


@pytest.fixture
def inside(capsys):
    """A command in this process: what it prints. Starting a process costs seconds."""

    def call(*arguments):
        cli.app(args=[*map(str, arguments)], standalone_mode=False)
        return capsys.readouterr().out

    return call

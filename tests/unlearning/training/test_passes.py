"""A run with the blocks of the model on disk is the run with the model in memory."""

import itertools

import pytest

from tests.conftest import MORE_FAMILIES
from tests.unlearning.conftest import assert_equal_runs, both, folder_of, mask_of, unlearn
from wagle.model.loading import load_model
from wagle.model.streaming.opening import open_streamed, stream_of
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError

RATIOS = [0.001, 0.05, 0.8]


def _compare(family="llama-untied", ratio=0.3, **settings):
    folder = folder_of(family)
    mask = None if ratio is None else mask_of(load_model(folder), ratio)
    settings = {"learning_rate": 1e-3, "max_steps": 4, **settings}
    assert_equal_runs(both(folder, mask, **settings), folder, mask)


@pytest.mark.parametrize("family", sorted(MORE_FAMILIES))
def test_every_family_trains_alike_for_20_steps(family):
    ratio = RATIOS[sorted(MORE_FAMILIES).index(family) % 3]
    _compare(family, ratio, max_steps=20)


@pytest.mark.parametrize("ratio", [*RATIOS, None])
def test_every_ratio_trains_alike(ratio):
    _compare("llama-tied", ratio, weight_decay=0.1)


OBJECTIVES = {
    "grad_diff": {},
    "npo": {},
    "simnpo": {},
    "po": {},
    "dpo": {},
    "rmu": {"objective_settings": {"layer": 0}},
    "undial": {},
    "ga_kl": {},
}


@pytest.mark.parametrize(
    ("objective", "full_reference"),
    [*((name, "copy") for name in sorted(OBJECTIVES)), ("undial", "topk"), ("ga_kl", "topk")],
)
def test_every_objective_trains_alike(objective, full_reference):
    more = {"full_reference": full_reference, "accumulation": 2, "batch_size": 1}
    _compare(objective=objective, **more, **OBJECTIVES[objective])


def test_activations_of_a_contrast_are_read_in_step():
    prompts = {"novice": "I know nothing of {topic}.", "expert": "I know all of {topic}."}
    given = {"layer": 1, "direction": "contrast", "topics": ["gardens"], **prompts}
    _compare(objective="rmu", objective_settings=given)


METHODS = [
    {"wrapper": "gru"},
    {"wrapper": "sam"},
    {"wrapper": "smooth", "wrapper_settings": {"draws": 2}},
    {"wrapper": "task_vector", "objective": "forget_finetune", "retain_term": "none"},
    {"dynamic_mask": "sign_agreement"},
    {"dynamic_mask": "row_norm", "dynamic_settings": {"quantile": 0.5}},
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: next(iter(m.values())))
@pytest.mark.parametrize("on_disk", [False, True])
def test_every_wrapper_and_dynamic_mask_trains_alike(method, on_disk, monkeypatch):
    if on_disk:
        monkeypatch.setattr("wagle.unlearning.training.weights.choosing.SMALL", 0)
    _compare(**method)


@pytest.mark.parametrize(
    "more",
    [
        {"precision": "bfloat16", "max_steps": 2},
        {"batch_size": 1, "accumulation": 3},
        {"evaluate_every": 2, "best": "max retain.probability", "check_every": 1},
        {"activation_checkpointing": True},
    ],
    ids=lambda more: next(iter(more)),
)
def test_other_settings_train_alike(more):
    _compare(**more)


def test_a_run_lands_alike():
    _compare(
        objective="grad_ascent",
        stop_when=["forget.nll >= 6.3"],
        land=True,
        check_every=1,
        max_steps=30,
    )


def test_a_step_reads_every_block_twice_but_the_last():
    folder, sizes = folder_of("llama-untied"), []
    model = open_streamed(folder)
    stream = stream_of(model)
    size = sum(p.numel() * 4 for n, p in model.named_parameters() if n in stream.names[0])
    more = {"batch_size": 1, "accumulation": 4, "max_steps": 4}
    unlearn(model, **more, on_step=lambda _: sizes.append(stream.read))
    steps = [(after - before) / size for before, after in itertools.pairwise(sizes)]
    assert max(steps) <= 3  # of 2 + 2, for 4 + 4 passes


def test_a_run_that_breaks_off_gives_back_the_folder_s_own_weights():
    def broken(forget):
        raise WagleError(f"enough of {len(forget.length)}")

    folder = folder_of("llama-tied")
    model = open_streamed(folder)
    with pytest.raises(WagleError, match="enough"):
        unlearn(model, objective=broken)
    assert fingerprint(model) == fingerprint(folder)
    assert all(p.requires_grad for p in model.parameters())
    assert len(stream_of(model).trained) == sum(map(len, stream_of(model).names))


def test_a_model_that_was_trained_must_be_saved_before_it_trains_again():
    model = open_streamed(folder_of("llama-tied"))
    unlearn(model)
    with pytest.raises(WagleError, match=r"has been trained already; save it with save_model"):
        unlearn(model)

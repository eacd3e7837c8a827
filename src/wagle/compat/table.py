"""The private names of other libraries that wagle uses: what each must be, and what for.

To use one more, add a function to the library's file here, and its row.
"""

from __future__ import annotations

import inspect

from wagle.compat import behaviour
from wagle.compat.contracts import Contract

TESTED = {
    "accelerate": "1.15.0",
    "bitsandbytes": "0.50.2",
    "datasets": "5.2.0",
    "lm_eval": "0.4.13",
    "torch": "2.13.0",
    "torchao": "0.18.0",
    "transformers": "5.23.0",
}
"""The version of each library that all rows were last checked with."""

_LOADING = "transformers.core_model_loading"
_MAPPING = "transformers.conversion_mapping"
_TRACKERS = "transformers.integrations.integration_utils"

CONTRACTS: tuple[Contract, ...] = (
    Contract(
        "transformers.cache_utils",
        "DynamicLayer",
        "transformers.DynamicLayer",
        "recognise a cache that keeps every token, and give it room",
        check=behaviour.layer_grows,
        promise="whose keys and values are (B, heads, T, size)",
    ),
    Contract(
        "transformers.cache_utils",
        "DynamicSlidingWindowLayer",
        "transformers.window_of",
        "keep on disk what blocks with a sliding window see",
        check=behaviour.window_slides,
        promise="which shows a token the sliding_window - 1 before it, and says so to the mask",
    ),
    Contract(
        "transformers:DynamicCache",
        "layers",
        "transformers.DynamicLayer",
        "reach the keys and values of each block",
        check=behaviour.cache_has_layers,
        promise="a list with a DynamicLayer for each block that keeps every token",
    ),
    Contract(
        _MAPPING,
        "get_checkpoint_conversion_mapping",
        "transformers.has_conversion",
        "tell without building the model whether a folder holds the model's own tensors",
        takes=("model_type",),
    ),
    Contract(
        _MAPPING,
        "get_model_conversion_mapping",
        "transformers.stored_names",
        "find out how the weights in a folder become those of the model",
        takes=("model",),
    ),
    Contract(
        _LOADING,
        "WeightConverter",
        "transformers.stored_names",
        "recognise the conversions in a mapping",
        check=lambda module: inspect.isclass(module.WeightConverter),
    ),
    Contract(
        _LOADING,
        "WeightRenaming",
        "transformers.stored_names",
        "recognise the renamings in a mapping",
        check=lambda module: inspect.isclass(module.WeightRenaming),
    ),
    Contract(
        _LOADING,
        "rename_source_key",
        "transformers.stored_names",
        "find out which tensors of a folder a parameter is made from",
        takes=(
            "source_key",
            "weight_renamings",
            "weight_converters",
            "base_model_prefix",
            "meta_state_dict",
        ),
    ),
    Contract(
        _LOADING,
        "convert_and_load_state_dict_in_model",
        "transformers.load_converted",
        "convert only some tensors of a folder",
        takes=("model", "state_dict", "load_config"),
    ),
    Contract(
        "transformers.modeling_utils",
        "LoadStateDictConfig",
        "transformers.load_converted",
        "say how tensors are converted",
        takes=("dtype", "weight_mapping"),
    ),
    Contract(
        "transformers:PreTrainedConfig",
        "_attn_implementation",
        "transformers.attention_of",
        "find out which attention code a model uses",
        check=behaviour.attention_is_told,
    ),
    Contract(
        "transformers.quantizers.base:HfQuantizer",
        "preprocess_model",
        "transformers.is_quantized",
        "recognise a quantised model",
        check=behaviour.quantizer_says_so,
        promise="which sets is_quantized on the model",
    ),
    Contract(
        "transformers:PreTrainedModel",
        "all_tied_weights_keys",
        "transformers.forget_ties",
        "untie the weights of a quantised copy",
        called_by="tie_weights",
    ),
    Contract(
        "transformers:Trainer",
        "_prepare_inputs",
        "transformers.prepared_inputs",
        "put a batch where the model is",
        takes=("inputs",),
        called_by="training_step",
    ),
    Contract(
        "transformers:TrainingArguments",
        "_n_gpu",
        "transformers.use_one_gpu",
        "keep the Trainer from making replicas of the model",
        check=behaviour.count_is_kept,
        promise="which n_gpu returns",
    ),
    Contract(
        "transformers:Trainer",
        "callback_handler",
        "transformers.tell_trackers",
        "give figures to the trackers alone",
        called_by="log",
    ),
    Contract(
        "transformers.trainer_callback:CallbackHandler",
        "callbacks",
        "transformers.place_tensorboard",
        "find the tracker that writes files",
        check=behaviour.callbacks_are_listed,
        promise="a list of the callbacks",
    ),
    Contract(
        "transformers.trainer_callback:CallbackHandler",
        "on_log",
        "transformers.tell_trackers",
        "give figures to the trackers alone",
        takes=("args", "state", "control", "logs"),
    ),
    Contract(
        _TRACKERS,
        "INTEGRATION_TO_CALLBACK",
        "transformers.known_trackers",
        "list the names of trackers",
        check=lambda module: inspect.isclass(module.INTEGRATION_TO_CALLBACK["tensorboard"]),
    ),
    Contract(
        _TRACKERS,
        "get_available_reporting_integrations",
        "transformers.installed_trackers",
        "find out which trackers are installed",
        check=lambda module: isinstance(module.get_available_reporting_integrations(), list),
    ),
    Contract(
        _TRACKERS,
        "default_logdir",
        "transformers.place_tensorboard",
        "write where tensorboard would by default",
        check=lambda module: isinstance(module.default_logdir(), str),
    ),
    Contract(
        f"{_TRACKERS}:TensorBoardCallback",
        "logging_dir",
        "transformers.place_tensorboard",
        "write events to the folder of the run",
        called_by="_init_summary_writer",
    ),
    Contract(
        "accelerate:Accelerator",
        "prepare_model",
        "accelerate.forget_notes",
        "hand a trained model back as it was",
        check=behaviour.model_is_noted,
        promise="which sets _is_accelerate_prepared on the model and nothing else",
    ),
    Contract(
        "torch.autograd",
        "AccumulateGrad.variable",
        "torch.leaf_of",
        "find out which weights a tensor was computed from",
        check=behaviour.leaf_is_told,
    ),
    Contract(
        "torch.utils._pytree",
        "log",
        "torch.PYTREE_LOGGER",
        "keep another library's warning out of the terminal",
        check=behaviour.logger_is_named,
        promise="named after its module",
    ),
    Contract(
        "datasets.exceptions",
        "DatasetsError",
        "datasets.DatasetsError",
        "recognise that a data set cannot be read",
        check=lambda module: issubclass(module.DatasetNotFoundError, module.DatasetsError),
        promise="the base of its other errors",
    ),
    Contract(
        "datasets.config",
        "HF_HUB_OFFLINE",
        "datasets.hub_is_offline",
        "say why the hub was not asked",
        check=lambda module: isinstance(module.HF_HUB_OFFLINE, bool),
    ),
    Contract(
        "bitsandbytes.nn:Linear4bit",
        "support_avx512bf16_for_cpu",
        "bitsandbytes.never_repack",
        "keep the bits of a quantised layer unchanged",
        called_by="forward",
    ),
    Contract(
        "torchao.quantization",
        "Int8WeightOnlyConfig",
        "torchao.codes_and_steps",
        "read the codes of an eight-bit weight",
        check=behaviour.int8_has_codes,
        promise="whose weights have qdata and scale",
    ),
    Contract(
        "torchao.quantization",
        "IntxWeightOnlyConfig",
        "torchao.codes_and_steps",
        "read the codes of a four-bit weight",
        check=behaviour.int4_has_codes,
        promise="whose weights have qdata and scale",
    ),
    Contract(
        "lm_eval.tasks:TaskManager",
        "task_index",
        "lm_eval.task_index",
        "have tasks read their data from a folder",
        check=behaviour.index_is_one,
        promise="one dictionary, which it loads from",
    ),
    Contract(
        "lm_eval.tasks._index",
        "Entry",
        "lm_eval.task_settings",
        "find the data set and the file of a task",
        check=behaviour.entry_is_whole,
        promise="a dataclass with cfg, tags and yaml_path",
    ),
    Contract(
        "lm_eval.models.huggingface:HFLM",
        "_loglikelihood_tokens",
        "lm_eval.in_parts",
        "ask a model whose blocks are on disk all questions of a suite in one reading",
        takes=("requests", "disable_tqdm"),
        called_by="loglikelihood_rolling",
    ),
    Contract(
        "lm_eval.api.task:ConfigurableTask",
        "__init__",
        "lm_eval.runs_code",
        "refuse tasks that run code",
        check=behaviour.task_says_so,
        promise="which sets UNSAFE_CODE",
    ),
)
"""Every private or undocumented name that wagle uses, one per row."""

"""What the processes of ``tests.processes`` find imported already."""

import gc

import torch.distributed  # noqa: F401
from transformers import Trainer, TrainingArguments  # noqa: F401

import tests.conftest  # noqa: F401
import wagle.attribution.gradients.collect
import wagle.cli.app
import wagle.evaluation.measuring
import wagle.run.execution
import wagle.unlearning.forgetting
import wagle.unlearning.teaching  # noqa: F401

gc.collect()
gc.freeze()  # else every collection in a process looks through all of this

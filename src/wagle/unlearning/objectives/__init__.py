"""Unlearning objectives: pure functions from scored records to a loss per record.

An objective sees log-probabilities, logits or activations, never a model, a tokenizer or a device.
What it needs it asks for by parameter name; keyword parameters with a default are its settings.
It returns its forget term, (B_f,), which then goes with any retain term and with the weights
``forget_weight`` and ``retain_weight``; or, where forgetting and keeping are one thing, ``Terms``.

What can be asked for (``inputs.py`` of this package's parent supplies it):

    forget, retain           the records of a batch (Scored)
    refusal, alternative     the forget prompts with a refusal, or another answer, as their answer
    mismatch, uniform        the forget prompts with another record's answer; random tokens as answer
    retain_refusal           the retain prompts with a refusal as their answer
    NAME_ref                 any of these under the original model (Scored, no gradient)
    NAME_tokens              (n,) int64, the scored tokens of any of these
    NAME_logits              (n, V) what predicts the scored tokens, with gradient
    NAME_logits_ref          the same of the original model (Distribution)
    NAME_hidden              what comes out of block ``layer``, a setting (Hidden)
    NAME_hidden_ref          the same of the original model
    control                  (B_f, d) the control vector of each forget record's topic
    dual                     a number that the trainer updates after every step

To add one: a function in the file of its family, its entry in OBJECTIVES, a test.
"""

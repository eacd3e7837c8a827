"""Unlearning objectives: pure functions from scored records to a loss per record.

An objective sees log-probabilities, logits or activations, never a model, a tokenizer or a device.
It asks for what it needs by parameter name; keyword parameters with a default are its settings.
It returns its forget term, (B_f,), which can be combined with any retain term and the weights
``forget_weight`` and ``retain_weight``; or ``Terms``, if forgetting and keeping are inseparable.

What it can ask for (``unlearning/inputs.py`` supplies it):

    forget, retain           the records of a batch (Scored) refusal, alternative     the forget
    prompts with a refusal, or another answer, as their answer mismatch, uniform        the forget
    prompts with another record's answer; random tokens as answer retain_refusal           the
    retain prompts with a refusal as their answer NAME_ref                 any of these under the
    original model (Scored, no gradient) NAME_tokens              (n,) int64, the scored tokens of
    any of these NAME_logits              (n, V) the logits that predict the scored tokens, with
    gradient NAME_logits_ref          the same from the original model (Distribution) NAME_hidden
    the output of block ``layer``, a setting (Hidden) NAME_hidden_ref          the same from the
    original model control                  (B_f, d) the control vector of each forget record's
    topic dual                     a number that the trainer updates after every step

To add one, edit the file of its family and that file's test: a function, its entry in the table at
the end of the file, a case in the test. Everything else follows from the table: the name in a
recipe, its settings (the keyword parameters), the page docs/objectives.md (``make
docs/objectives.md``), and the tests that run every entry. A new family's table must also be listed
in ``table.py``.

    def hinge(forget: Scored, *, margin: float = 3.0) -> Tensor:
        # its docstring: what it does, the formula, Args, Source
        return (margin - forget.nll_mean).clamp(min=0)

    ASCENT: dict[str, Objective] = {
        ...
        "hinge": Objective(hinge),
    }

``Objective`` (``entry.py``) says what else an entry can hold: another retain term, weights, a check
of the settings, the parameters that it trains where there is no mask.
"""

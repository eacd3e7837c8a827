"""One plug-in of each kind: an objective, a retain term, a score, a benchmark, an attack, a data set.

Each has the form of wagle's own members, and asks for what it needs by the names of its parameters.
Keyword-only parameters are settings, which a recipe can override.
"""

from collections.abc import Iterator, Sequence

from torch import Tensor

from wagle.attacks.parts import ask_once, question_contexts, those_that_ask
from wagle.attacks.shapes import Scene, Trial
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.data.tokens import Encoder, text_of
from wagle.evaluation.asking.requests import Answers, Greedy
from wagle.evaluation.figures import HIGHER, Measured, Task, mean_figure
from wagle.model.scoring import Scored


def gentle(forget: Scored, *, ceiling: float = 5.0) -> Tensor:
    """Raise the loss of each record to forget, and leave it alone once it has reached the ceiling.

    Args:
        forget: B records; ``nll_mean`` is (B,) float32, in nats.
        ceiling: the mean NLL of an answer that counts as forgotten, in nats.
    """
    return (ceiling - forget.nll_mean).clamp(min=0)


def squared(retain: Scored) -> Tensor:
    """Keep what is known, and mind most the records that are known least: the squared mean NLL."""
    return retain.nll_mean.square()


def forget_only(weight: Tensor, grad_forget: Tensor) -> Tensor:
    """The size of the first-order change of the forget loss if the weight went to zero."""
    return (weight * grad_forget).abs()


def capitals(encoder: Encoder, *, most: int = 3, seed: int = 0) -> Task:
    """Does the model still know some capitals?

    Args:
        encoder: the model's encoder.
        most: how many of them to ask.
        seed: for the interval.
    """
    known = [("France", "Paris"), ("Japan", "Tokyo"), ("Peru", "Lima")]
    rows = [
        {"question": f"What is the capital of {land}?", "answer": capital}
        for land, capital in known[:most]
    ]
    records = read_records(rows, name="capitals", seed=seed)
    contexts = question_contexts(encoder, records, "capitals")
    requests = [Greedy(c, 16, r.place) for r, c in zip(records, contexts, strict=True)]

    def measure(answers: Answers) -> Measured:
        said = word_for_word(records, requests, answers, encoder)
        figure = mean_figure(said, unit="share", direction=HIGHER, share=True, seed=seed)
        return Measured({"general": {"known": figure}})

    return Task(requests, measure, data={"records": len(requests)})


def word_for_word(
    records: Sequence[Record], requests: Sequence[Greedy], answers: Answers, encoder: Encoder
) -> dict[str, float]:
    """1 for each record whose right answer stands in what the model wrote, by its place."""
    assert encoder.tokenizer is not None
    return {
        record.place: float(record.answer in text_of(encoder.tokenizer, answers.text(request).ids))
        for record, request in zip(records, requests, strict=True)
    }


def asked_twice(scene: Scene, *, max_new_tokens: int = 32) -> Trial:
    """Ask every forget question with its own text repeated in front of it.

    Args:
        scene: its forget set is used.
        max_new_tokens: the longest answer.
    """
    forget = those_that_ask(scene.need("forget", "asked_twice"), "asked_twice")
    encoder = scene.way.encoder
    contexts = question_contexts(encoder, forget, "asked_twice")
    requests = [
        Greedy((*c, *c), max_new_tokens, r.place) for r, c in zip(forget, contexts, strict=True)
    ]

    def measure(answers: Answers) -> Measured:
        said = word_for_word(forget, requests, answers, encoder)
        leaked = mean_figure(said, unit="share", share=True, seed=scene.seed)
        return Measured({"forget": {"word_for_word": leaked}})

    return ask_once(scene, Task(requests, measure, data={"records": len(requests)}))


def harbours() -> Iterator[dict[str, str]]:
    """Records about harbours that do not exist, one dictionary each."""
    for name, sea in (("Vell", "North Sea"), ("Ostrand", "Baltic Sea"), ("Miro", "Adriatic")):
        yield {"question": f"Which sea does the harbour of {name} lie on?", "answer": f"The {sea}."}

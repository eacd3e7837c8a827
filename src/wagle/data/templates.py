"""How a question becomes a prompt where the tokenizer has no chat template."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Template:
    """How a question becomes text: ``head`` + answer + ``tail``; without an end, the EOS closes it.

    Attributes:
        question: text with ``{prompt}``; the answer follows immediately.
        end: what follows the answer, before the tokenizer's EOS.
        between: what separates a few-shot answer from the next question.
    """

    question: str
    end: str = ""
    between: str = "\n\n"


TEMPLATES: dict[str, Template] = {
    "plain": Template("### Question: {prompt}\n### Answer: "),
    "question_answer": Template("Question: {prompt}\nAnswer: "),
    "llama2": Template("[INST] {prompt} [/INST]", between=" "),
    "llama2_published": Template("[INST] {prompt} [\\INST] ", between=" "),
    "none": Template("{prompt}\n\n"),
}

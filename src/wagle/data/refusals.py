"""Refusals: what an objective may teach a model to say instead of what it should forget.

Refusal objectives train the model on a forget record's question with one of these as the answer,
drawn per (seed, record id). They name no topic, so any of them fits any question.
"""

from __future__ import annotations

REFUSALS = (
    "I'm afraid I can't help with that one.",
    "I don't know the answer to that.",
    "That is something I have no information about.",
    "Sorry, I really couldn't say.",
    "I would only be guessing, so I'd rather not answer.",
    "My knowledge doesn't reach that far.",
    "Unfortunately, I have nothing to offer on this.",
    "I can't tell you anything about that.",
    "This is beyond what I know.",
    "I wish I could help, but I don't know.",
    "You've asked me something I have never learned.",
    "I have to pass on this question.",
    "No answer comes to mind, I'm sorry to say.",
    "I'm not able to give you a reply here.",
    "That lies outside the things I'm familiar with.",
    "To be honest, I haven't the faintest idea.",
    "I'm sorry, but I must leave this unanswered.",
    "Nothing I know would settle that for you.",
    "I can't provide the details you are looking for.",
    "My honest reply is that I'm not sure.",
    "I'd need to know far more to answer this.",
    "Here I have to admit that I don't know.",
    "I've got no reliable knowledge to share on that.",
    "It would be wrong of me to make something up.",
    "I don't think I can be of use here.",
    "Regrettably, this isn't something I can answer.",
    "I am unaware of any details about this.",
    "You'd better ask elsewhere, because I can't say.",
    "I've never come across that, so I cannot comment.",
    "Apologies, but I'm unable to respond to this.",
    "That question leaves me without an answer.",
    "I draw a blank on this, I must confess.",
)
"""32 answers of 4 to 12 words, all different, all in the first person."""

"""Requests to answers: batched, cached, each asked once."""

from __future__ import annotations

from wagle.system.moved import moved

__getattr__ = moved(__name__, {"Way": "evaluation.models", "evaluate": "evaluation.measuring"})

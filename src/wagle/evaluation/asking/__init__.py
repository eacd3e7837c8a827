"""Requests to answers: batched, cached, each asked once."""

"""Asking a model whose blocks are on disk: everything goes through it in step."""

"""Published masks of imported configs: converted where they are used."""

from __future__ import annotations

from pathlib import Path

from wagle.recipe.published.imported import MaskFile


def make_mask(mask: MaskFile, model: str) -> None:
    """Convert a published mask, unless that was done since it last changed."""
    published, made = Path(mask.published), Path(mask.path)
    if not published.exists():
        return
    if made.exists() and made.stat().st_mtime >= published.stat().st_mtime:
        return
    from wagle.mask.exchange import import_mask
    from wagle.model.loading import resolve_model

    import_mask(published, resolve_model(model)).save(made)

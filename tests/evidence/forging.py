"""Packs that were tampered with: by a stranger, or by the maker, who can sign anew."""

from __future__ import annotations

import json

from wagle.evidence.pack import MANIFEST, SIGNATURE, manifest_of, read_pack
from wagle.evidence.signing import read_key, sign


def edit(pack, name, change):
    """Change a JSON file of a pack; ``change`` gets its content and changes it in place."""
    data = json.loads((pack / name).read_text())
    change(data)
    (pack / name).write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def sign_anew(pack, key):
    """Make manifest and signature fit again, as only the holder of the key can."""
    manifest = manifest_of(read_pack(pack))
    (pack / MANIFEST).write_text(json.dumps(manifest))
    (pack / SIGNATURE).write_text(json.dumps(sign(manifest["root"], read_key(key))))


def set_figure(result, metric, value):
    """Set a figure of the forget set and all its records to one value."""
    figure = result["metrics"][f"forget.{metric}"]
    figure["value"] = value
    figure["per_record"] = dict.fromkeys(figure["per_record"], value)
    figure["interval"] = [value, value]

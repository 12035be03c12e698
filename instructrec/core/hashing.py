"""Choices by a hash of names and the seed: the same in every process, and whatever else there is to choose from."""

from __future__ import annotations

import hashlib


def hashed(*parts: object) -> int:
    """A 64-bit integer that depends on the parts alone, the same in every process."""
    text = "\x1f".join([str(part) for part in parts])
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")

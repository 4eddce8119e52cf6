"""Seeds that depend on names, not on the order of work, so that results do not depend on what ran before."""

from __future__ import annotations

import hashlib


def named_seed(seed: int, *names: str) -> int:
    """A seed of 63 bits from the job's seed and names (dataset, category, image)."""
    digest = hashlib.sha256("\x00".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1

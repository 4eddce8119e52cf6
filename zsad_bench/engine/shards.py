"""One job on many machines: ``shard=3/16`` evaluates every sixteenth category of it, beginning with the third."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from zsad_bench.core.errors import UserError


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of ``count``."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """A shard from ``3/16``. Raises UserError for anything else."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UserError(f"shard={text}: write it as part/parts, from 1/16 to 16/16 for sixteen parts")
        return cls(int(match[1]), int(match[2]))

    def categories(self, names: Sequence[str]) -> list[str]:
        """Its share of the categories."""
        return list(names[self.index - 1 :: self.count])

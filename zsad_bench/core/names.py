"""Names: as file names, near misses of them in messages, and the order of batch sizes."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LONGEST = 100
"""Characters of a file name made of a name; endings and the prefix of temporary files come on top."""

_MARK_DIGITS = 10
_PLAIN = re.compile(r"[a-z0-9_][a-z0-9_-]*")
_MARKED = re.compile(rf".*-[0-9a-f]{{{_MARK_DIGITS}}}", re.DOTALL | re.IGNORECASE)
# Windows keeps these for devices, with any ending.
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]|[\ud800-\udfff]')


def safe_name(name: str) -> str:
    """A file or folder name for a name, the same everywhere; different names get different ones on every file system.

    Names of small ASCII letters, digits, ``_`` and ``-`` are kept as they are. All others get a hash behind what can be
    kept of them: names with capital letters (some disks do not tell them from small ones), dots (they look like
    endings), spaces, slashes, other scripts, devices of Windows, very long names, and names that look as if they had
    such a hash already.

    Args:
        name: any text, also an empty one.

    Returns:
        1 to 100 characters, ASCII letters, digits, ``_`` and ``-`` only. Two names give the same only where 40 bits of
        their SHA-256 agree.
    """
    if len(name) <= LONGEST and _PLAIN.fullmatch(name) and not _MARKED.fullmatch(name) and not _RESERVED.match(name):
        return name
    kept = re.sub(r"[^A-Za-z0-9_]+", "-", name)[: LONGEST - _MARK_DIGITS - 1].strip("-")
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_MARK_DIGITS]
    return f"{kept or '_'}-{mark}"


def readable_names(names: Iterable[str]) -> dict[str, str]:
    """Folder names that keep what a reader or another program takes for the name itself; no two are the same.

    A name that is a folder name on every system stays as it is, capital letters, spaces and dots included; in others
    ``_`` stands for what cannot be. Where two would then differ in capital letters at most, those that changed become
    their :func:`safe_name`, or both if none did.
    """
    every = sorted(set(names))
    found = {name: name if _is_folder_name(name) else _cleaned(name) for name in every}
    for alike in (lambda name: found[name] != name, lambda name: True):
        count = Counter(name.casefold() for name in found.values())
        for name in every:
            if alike(name) and count[found[name].casefold()] > 1:
                found[name] = safe_name(name)
    return found


def _cleaned(name: str) -> str:
    kept = _FORBIDDEN.sub("_", name).strip().lstrip(".-~").rstrip(". ")
    return kept if _is_folder_name(kept) else safe_name(name)


def readable_name(name: str) -> str:
    """A name as it is where every system takes it for a file or folder name, else its :func:`safe_name`."""
    return name if _is_folder_name(name) else safe_name(name)


def _is_folder_name(name: str) -> bool:
    ends_well = name == name.strip() and not name.startswith((".", "-", "~")) and not name.endswith(".")
    bad = _FORBIDDEN.search(name) or _RESERVED.fullmatch(name) or _MARKED.fullmatch(name)
    return 0 < len(name) <= LONGEST and name.isascii() and ends_well and not bad


def near_misses(word: str, choices: Iterable[str], count: int = 1, cutoff: float = 0.5) -> list[str]:
    """Choices that a word may have been meant for, the nearest first; capital letters make no difference.

    Args:
        word: what was written.
        choices: what could have been written.
        count: how many to return at most.
        cutoff: least similarity, from 0 to 1 (``difflib.get_close_matches``).
    """
    by_folded: dict[str, list[str]] = {}
    for choice in dict.fromkeys(choices):
        by_folded.setdefault(choice.casefold(), []).append(choice)
    near = get_close_matches(word.casefold(), by_folded, n=count, cutoff=cutoff)
    return [choice for match in near for choice in by_folded[match]][:count]


def did_you_mean(word: str, choices: Sequence[str], count: int = 1, cutoff: float = 0.5, listed: int = 12) -> str:
    """``"; did you mean a or b?"`` for near misses, else the choices if there are few, else an empty text.

    Args:
        word: what was written.
        choices: what could have been written.
        count: how many near misses to name at most.
        cutoff: as of :func:`near_misses`.
        listed: how many choices are few.
    """
    near = near_misses(word, choices, count, cutoff)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    return f"; choose from {', '.join(choices)}" if 0 < len(choices) <= listed else ""


def batch_size_order(batch_size: object) -> float:
    """A batch size, a whole number or ``all``, as a number to sort by; ``all`` is larger than any."""
    return math.inf if batch_size == "all" else float(str(batch_size))

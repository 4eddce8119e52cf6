"""Keys that a sweep varies: what tells rows apart that would otherwise look alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zsad_bench.results.rows import JobInfo

# Columns of their own, or said by the variant, the protocol or the setting.
_SHOWN = {
    *("batch_size", "seed", "limit", "last_batch", "evaluation_size", "sweep200", "on_error"),
    *("encoder.model", "encoder.pretrained", "encoder.image_size", "encoder.precision", "encoder.resize"),
    *("method.name", "method.variant", "dataset.name", "dataset.protocol", "dataset.categories"),
}


def varied_keys(jobs: Sequence[JobInfo]) -> list[str]:
    """Full keys (``method.temperature``) in which jobs differ that share every other label, in a fixed order.

    Two presets of a method differ in many keys and are told apart by their variant, so only jobs of one preset are
    compared.
    """
    alike: dict[tuple[object, ...], list[JobInfo]] = {}
    for info in jobs:
        shared = (info.method, info.preset, info.dataset, info.protocol, info.encoder, info.pretrained, info.image_size)
        alike.setdefault((*shared, info.precision, str(info.batch_size), info.seed), []).append(info)
    found: dict[str, None] = {}
    for group in alike.values():
        for key in group[0].keys if len(group) > 1 else ():
            if key not in _SHOWN and len({info.keys.get(key) for info in group}) > 1:
                found[key] = None
    return sorted(found)


def varied_values(info: JobInfo, keys: Sequence[str]) -> dict[str, str]:
    """The values of a job for such keys, empty where its method or dataset has no such key."""
    return {key: info.keys.get(key, "") for key in keys}


def key_columns(columns: Iterable[object]) -> list[str]:
    """Those columns of a table that are varied keys: no other column has a dot in its name."""
    return [str(name) for name in columns if "." in str(name)]


def short_key(column: str) -> str:
    """A key without its group, for the head of a column."""
    return column.rsplit(".", maxsplit=1)[-1]

"""Keys of every method, over the whole registry: a new method adds no line here.

The YAML and the class agree on them, and every key changes the output.

Alternatives of a key follow from its declared type. Some keys act only together with another
(``steps`` with ``adapt=true``), so a key must change the output in at least one of these contexts: a configuration of
the registry with the same class, or one of these with one other key changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import pytest
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from tests.helpers.registry import NAMES, config_of, make, names, photos, predict
from zsad_bench.config.schema import METHOD_CARD
from zsad_bench.contract import Prediction
from zsad_bench.contract.keys import declared_keys
from zsad_bench.core.errors import UserError

# Names, and what guards a run without entering its result.
NOT_IN_THE_RESULT = {"_target_", "name", "variant", "checkpoint", "allow_seen", *METHOD_CARD}
N_IMAGES = 8

Value = object
METHODS = Path(__file__).resolve().parents[2] / "conf" / "method"
CONFIGS = {name: config_of(name) for name in NAMES}
TARGETS = sorted({config["_target_"] for config in CONFIGS.values()})


def contexts(target: str) -> dict[str, DictConfig]:
    return {name: config for name, config in CONFIGS.items() if config["_target_"] == target}


def parts(hint: object) -> Iterator[object]:
    """A type and the types that it is made of, without constraints."""
    yield hint
    inside = get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint)
    for part in inside if get_origin(hint) is not Literal else ():
        yield from parts(part)


def alternatives(hint: object, key: str, value: Value) -> Iterator[Value]:
    """Other values of a key, by its type; some may be refused or, in a small example, equal."""
    types = list(parts(hint))
    choices = [choice for part in types if get_origin(part) is Literal for choice in get_args(part)]
    if key == "prompts":
        yield from (name for name in ("winclip", "anoclip") if name != value)
    elif choices:
        yield from (choice for choice in choices if choice != value)
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, (int, float)):
        yield from (type(value)(value * factor) for factor in (2, 0.5, 4, 0.1) if value)
        yield from (type(value)(step) for step in (1, 3, 0.9, 0.5) if step != value)
    elif value is None and float in types:
        yield from (0.3, 0.9)
    elif value is None or isinstance(value, list):  # a list of numbers: layers, sides, windows, bounds, views
        yield from (list(part) for part in ([4], [3], [1], [0], [1, 2], [0.3, 0.9], [2, 4]) if part != value)


class Runs:
    """Predictions of one class, computed once per configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pixels = photos(N_IMAGES)
        self.known: dict[str, Prediction | None] = {}

    def __call__(self, config: DictConfig, changes: dict[str, Value]) -> Prediction | None:
        """None if the values do not go together. The last batch is short."""
        merged = OmegaConf.merge(config, changes)
        text = OmegaConf.to_yaml(merged)
        if text not in self.known:
            try:
                self.known[text] = predict(make(merged, self.folder), self.pixels, names(), 5)
            except UserError:
                self.known[text] = None
        return self.known[text]

    def differ(self, config: DictConfig, base: dict[str, Value], key: str, value: Value) -> bool:
        before, after = self(config, base), self(config, {**base, key: value})
        if before is None or after is None:
            return False
        change = max(float((before.scores - after.scores).abs().max()), float((before.maps - after.maps).abs().max()))
        return change > 1e-7


def acts(runs: Runs, target: str, hints: dict[str, object], key: str) -> bool:
    """Whether the key changes the output, in a plain context or with one other key changed."""
    mine = [
        (config, value)
        for config in contexts(target).values()
        for value in alternatives(hints[key], key, OmegaConf.to_object(OmegaConf.create({"v": config[key]}))["v"])
    ]
    if any(runs.differ(config, {}, key, value) for config, value in mine):
        return True
    return any(
        runs.differ(config, {other: other_value}, key, value)
        for config, value in mine
        for other in hints
        if other in config and other not in NOT_IN_THE_RESULT and other != key and _selects(hints[other])
        for other_value in alternatives(hints[other], other, config[other])
    )


def _selects(hint: object) -> bool:
    """Whether a key of this type may switch others on."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return kind is bool or bool(get_args(kind))


@pytest.mark.parametrize("name", NAMES)
def test_yaml_and_class_agree(name: str) -> None:
    """Every key stands in the YAML, and a YAML that derives from no other has the defaults of its class."""
    config = CONFIGS[name]
    declared = {key.name: key.default for key in declared_keys(get_class(config["_target_"]))}
    written = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in OmegaConf.to_object(config).items()
        if key not in ("_target_", *METHOD_CARD)
    }
    assert set(written) == set(declared)
    if "defaults" not in OmegaConf.load(METHODS / f"{name}.yaml"):
        assert written == declared


@pytest.mark.parametrize("target", TARGETS)
def test_every_key_changes_the_output(target: str, tmp_path: Path) -> None:
    hints = {key.name: key.hint for key in declared_keys(get_class(target))}
    runs = Runs(tmp_path)
    keys = [key for key in next(iter(contexts(target).values())) if key not in NOT_IN_THE_RESULT]
    # A reconstruction has no code whose quirks it could reproduce.
    if all(config["variant"] == "reconstruction" for config in contexts(target).values()):
        keys.remove("reference_quirks")
    assert [key for key in keys if not acts(runs, target, hints, key)] == []

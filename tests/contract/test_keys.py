"""Keys that a method declares: constraints, messages, and classes that declare none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Gt, Interval, MinLen, MultipleOf
from omegaconf import OmegaConf

from zsad_bench.config.plugins import build
from zsad_bench.contract import Advice, FeatureBatch, FeatureRequest, Method, Prediction, Rule, TextFeatures
from zsad_bench.contract.keys import declared_keys, unmet
from zsad_bench.core.errors import UserError


class Plain(Method):
    """What both kinds of methods need; it declares no key."""

    setting = "single"

    def request(self) -> FeatureRequest:
        return FeatureRequest()

    def predict(self, batch: FeatureBatch) -> Prediction:
        raise NotImplementedError


@dataclass(kw_only=True, eq=False)
class Declared(Plain):
    name: str = "declared"
    temperature: Annotated[float, Gt(0)] = 0.07
    fusion: Literal["mean", "sum", "harmonic"] = "mean"
    average: Literal["unit", "raw"] | None = None
    steps: Annotated[int, Ge(1), Advice("adapt=false switches it off")] = 5
    sides: Annotated[Sequence[Annotated[int, Rule(lambda side: side % 2 == 1, "odd")]], MinLen(1)] = (1, 3)
    drop: Annotated[float, Interval(ge=0, lt=1)] | None = None
    adapt: bool = False


@dataclass(kw_only=True, eq=False)
class Derived(Declared):
    k_shot: int = 2
    temperature: Annotated[float, Gt(0)] = 0.01


class Ordinary(Plain):
    """As authors write methods who know nothing of declared keys."""

    k_shot = 3
    weights: Undefined  # noqa: F821 (an annotation that is not a key is never looked up)

    def __init__(self, *, name: str, variant: str, temperature: float) -> None:
        super().__init__(name=name, variant=variant, prompts="winclip")
        self.temperature = temperature


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("temperature", -1, "method.temperature=-1: must be above 0"),
        ("temperature", float("nan"), "method.temperature=nan: must be above 0"),
        ("temperature", "hot", "method.temperature=hot: must be a number"),
        ("temperature", True, "method.temperature=true: must be a number"),
        ("temperature", None, "method.temperature=null: must be a number"),
        ("fusion", "max", "method.fusion=max: choose mean, sum or harmonic"),
        ("fusion", ["sum"], "method.fusion=['sum']: choose mean, sum or harmonic"),
        ("average", "none", "method.average=none: choose unit or raw, or null"),
        ("steps", 0, "method.steps=0: must be at least 1; adapt=false switches it off"),
        ("steps", 1.5, "method.steps=1.5: must be a whole number; adapt=false switches it off"),
        ("sides", [1, 2], "method.sides=[1, 2]: each must be odd"),
        ("sides", (1, 2), "method.sides=[1, 2]: each must be odd"),
        ("sides", [], "method.sides=[]: must be a list of 1 or more"),
        ("sides", 3, "method.sides=3: must be a list"),
        ("sides", "3", "method.sides=3: must be a list"),
        ("drop", 1.0, "method.drop=1.0: must be at least 0 and below 1, or null"),
        ("adapt", 1, "method.adapt=1: must be true or false"),
        ("prompts", 3, "method.prompts=3: must be text, or null"),
    ],
)
def test_messages(key: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as caught:
        Derived(**{key: value})
    assert str(caught.value) == message


def test_values() -> None:
    """Lists become tuples, a whole number is a number, and what is not given has its default."""
    method = Declared(temperature=1, sides=[3, 5], drop=0)
    assert (method.temperature, method.sides, method.drop, method.fusion) == (1, (3, 5), 0, "mean")
    assert (Declared().k_shot, Derived().k_shot, Derived().temperature) == (0, 2, 0.01)
    with pytest.raises(TypeError, match="k_shot"):
        Declared(k_shot=1)
    assert Declared() != Declared(), "methods have a state and are compared by identity"


def test_declared_keys() -> None:
    own = ["temperature", "fusion", "average", "steps", "sides", "drop", "adapt"]
    names = ["name", "variant", "prompts", "reference_quirks"]
    assert [key.name for key in declared_keys(Declared)] == [*names, *own]
    assert {key.name: key.default for key in declared_keys(Derived)}["temperature"] == 0.01
    assert [key.name for key in declared_keys(Ordinary)] == names


def test_an_ordinary_constructor() -> None:
    target = f"{Ordinary.__module__}.{Ordinary.__qualname__}"
    config = OmegaConf.create({"_target_": target, "name": "own", "variant": "example", "temperature": -1})
    method = build(config, Method, "method")
    assert (method.name, method.prompts, method.reference_quirks, method.k_shot) == ("own", "winclip", False, 3)
    assert method.temperature == -1
    with pytest.raises(UserError, match=r"method\.variant=3: must be text"):
        Ordinary(name="own", variant=3, temperature=1)


def test_a_constraint_that_nobody_checks_is_no_constraint() -> None:
    with pytest.raises(TypeError, match="MultipleOf"):
        unmet(Annotated[int, MultipleOf(2)], 3)
    assert unmet(Annotated[int, "a remark"], 3) == ""


def test_text_for_a_method_that_takes_none() -> None:
    text = TextFeatures("cup", normal=None, abnormal=None)
    Declared().prepare(None)
    with pytest.raises(TypeError, match=r"Declared has prompts=winclip but does not take text"):
        Declared(prompts="winclip").prepare(text)

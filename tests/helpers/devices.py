"""Two stand-ins for a GPU, so that a machine without one can tell where tensors lie. No test here.

:func:`fake_device` is torch's own: fake tensors have a shape, a type and a device, and no values. They refuse to meet a
tensor of another device.

:class:`Pretended` tensors have values as well: they lie on the CPU and say that they lie on ``meta``. With them whole
evaluations run, libraries on the host included, and results can be compared with those of the CPU.

Both refuse what the rule of :mod:`zsad_bench.contract.method` forbids: float64 on the device and, while
:meth:`Guard.closed`, reading a value back to the host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from zsad_bench.contract import FeatureBatch, TextFeatures

PRETENDED = torch.device("meta")


class RuleBroken(AssertionError):
    """A tensor lies where it should not, or a value was read back."""


class Guard(TorchDispatchMode):
    """Watches every operation.

    Attributes:
        read_back: how often an operation brought a tensor or a value of the device to the host, by its name.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.read_back: Counter[str] = Counter()
        self._closed = False

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Nothing may be read back meanwhile."""
        before, self._closed = self._closed, True
        try:
            yield
        finally:
            self._closed = before

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "aten":
            with self:  # in inference mode, operations made of others arrive whole
                parts = func.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
        result = self.run(func, args, kwargs or {})
        given = self._tensors((args, kwargs or {}))
        if any(self._on_device(tensor) for tensor in given):
            name = func.overloadpacket.__name__
            brought = any(
                isinstance(one, bool | int | float | complex) or (isinstance(one, Tensor) and not self._on_device(one))
                for one in tree_flatten(result)[0]
            )
            if brought or self._shape_depends_on_values(func, given):
                self.read_back[name] += 1
                if self._closed:
                    raise RuleBroken(f"{name} reads a value of the device back")
        for tensor in self._tensors(result):
            if self._on_device(tensor) and tensor.dtype in (torch.float64, torch.complex128):
                raise RuleBroken(f"{func} makes float64 on the device")
        return result

    def run(self, func, args, kwargs):
        """The operation itself."""
        return func(*args, **kwargs)

    @staticmethod
    def _shape_depends_on_values(func, given: list[Tensor]) -> bool:
        """As that of ``nonzero`` and of ``x[mask]``, for which the host waits."""
        if func.overloadpacket.__name__ == "index":
            return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in given[1:])
        return torch.Tag.dynamic_output_shape in func.tags

    def _on_device(self, tensor: Tensor) -> bool:
        return tensor.device.type == self.device.type

    @staticmethod
    def _tensors(tree: object) -> list[Tensor]:
        return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor)]


@cache
def fakes_need_a_driver() -> bool:
    """Whether a part of a fake CUDA tensor asks for a driver that is not there: torch 2.6 built for CUDA does."""
    with FakeTensorMode():
        try:
            torch.empty(2, device="cuda")[1:]
        except RuntimeError:
            return True
    return False


@contextmanager
def fake_device(kind: str) -> Iterator[Guard]:
    """Fake tensors of a device (``cuda``), under guard; skips the test where this torch cannot make them."""
    if kind == "cuda" and fakes_need_a_driver():
        pytest.skip(f"fake CUDA tensors of torch {torch.__version__} need a driver")
    with FakeTensorMode(allow_non_fake_inputs=True), Guard(torch.device(kind)) as guard:
        yield guard


class Pretended(torch.Tensor):
    """A tensor on the CPU that says it lies on ``meta``."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=PRETENDED,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuleBroken(f"{func}: pretended tensors work inside pretended_device() only")


class _Pretence(Guard):
    # A CUDA kernel takes numbers (0-dim tensors) and indices of the CPU, and copies across devices.
    _TAKES_BOTH = ("copy_", "_to_copy", "index", "index_put_", "_index_put_impl_")

    def run(self, func, args, kwargs):
        name = func.overloadpacket.__name__
        given = self._tensors((args, kwargs))
        inside = [tensor for tensor in given if isinstance(tensor, Pretended)]
        foreign = [tensor for tensor in given if not isinstance(tensor, Pretended) and tensor.ndim]
        if inside and foreign and name not in self._TAKES_BOTH:
            raise RuleBroken(f"{name} of tensors on {PRETENDED} and on the CPU")
        target = kwargs.get("device")
        on_device = bool(inside) if target is None else torch.device(target).type == PRETENDED.type
        if name == "copy_":
            on_device = isinstance(args[0], Pretended)
        plain_args, plain_kwargs = tree_map(_inner, (args, kwargs))
        if target is not None:
            plain_kwargs["device"] = torch.device("cpu")
        result = func(*plain_args, **plain_kwargs)
        if func._schema.is_mutable:  # gives back what it was given
            same = {id(leaf.inner): leaf for leaf in inside}
            return tree_map(lambda leaf: same.get(id(leaf), leaf), result)
        if not on_device:
            return result
        # A view of a tensor of inference mode is one, and of an ordinary tensor is none, whatever the mode is now.
        of_inference = inside[0].is_inference() if func.is_view and inside else torch.is_inference_mode_enabled()
        with torch.inference_mode(of_inference):
            return tree_map(lambda leaf: Pretended(leaf) if isinstance(leaf, Tensor) else leaf, result)


def _inner(leaf: object) -> object:
    return leaf.inner if isinstance(leaf, Pretended) else leaf


class _Literals(TorchFunctionMode):
    """``torch.tensor([1, 2], device="meta")`` keeps no numbers, as ``meta`` has none: made on the CPU, then moved."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and torch.device(kwargs.get("device") or "cpu") == PRETENDED:
            del kwargs["device"]
            return func(*args, **kwargs).to(PRETENDED)
        return func(*args, **kwargs)


@contextmanager
def pretended_device() -> Iterator[Guard]:
    """Tensors of the pretended device, under guard."""
    with _Literals(), _Pretence(PRETENDED) as guard:
        yield guard


def empty_text(text: TextFeatures, device: str) -> TextFeatures:
    """Text features of the same shapes without values."""
    return replace(text, normal=_empty(text.normal, device), abnormal=_empty(text.abnormal, device))


def empty_batch(batch: FeatureBatch, device: str) -> FeatureBatch:
    """A batch of the same shapes without values."""
    return replace(
        batch,
        class_tokens=_empty(batch.class_tokens, device),
        tokens={tap: _empty(tokens, device) for tap, tokens in batch.tokens.items()},
        windows={side: _empty(vectors, device) for side, vectors in batch.windows.items()},
        views={view: _empty(vectors, device) for view, vectors in batch.views.items()},
        pixels=None if batch.pixels is None else _empty(batch.pixels, device),
    )


def _empty(tensor: Tensor, device: str) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

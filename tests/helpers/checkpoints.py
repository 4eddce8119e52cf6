"""Checkpoint files in every form in which CLIP weights are passed on. No test here."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

State = dict[str, Tensor]
Writer = Callable[[State, Path], Path]


def cast(state: State, dtype: torch.dtype) -> State:
    return {key: tensor.to(dtype) for key, tensor in state.items()}


def as_openai(state: State) -> State:
    """Half precision but for layer norms and the temperature, as OpenAI released its weights."""
    exact = {key for key in state if "ln_" in key or key == "logit_scale"}
    return {key: tensor.float() if key in exact else tensor.half() for key, tensor in state.items()}


def write_torch(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def write_safetensors(state: State, path: Path) -> Path:
    save_file({key: tensor.contiguous().clone() for key, tensor in state.items()}, path)
    return path


class _Scripted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def write_torchscript(state: State, path: Path) -> Path:
    """A TorchScript archive with the parameters and the three further numbers of OpenAI's archives."""
    root = _Scripted()
    for key, tensor in state.items():
        *folders, leaf = key.split(".")
        module: nn.Module = root
        for folder in folders:
            if folder not in dict(module.named_children()):
                module.add_module(folder, _Scripted())
            module = module.get_submodule(folder)
        module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    for name, number in (("input_resolution", 48), ("context_length", 77), ("vocab_size", 49408)):
        root.register_buffer(name, torch.tensor(number))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(root), str(path))
    return path


# Name -> the types that it stores, how it is written, and the suffix of its file.
FORMS: dict[str, tuple[Callable[[State], State], Writer, str]] = {
    "float32 state dict": (lambda state: state, write_torch, ".pt"),
    "half state dict": (lambda state: cast(state, torch.half), write_torch, ".pt"),
    "bfloat16 state dict": (lambda state: cast(state, torch.bfloat16), write_torch, ".bin"),
    "double state dict": (lambda state: cast(state, torch.double), write_torch, ".pth"),
    "OpenAI's types": (as_openai, write_torch, ".pt"),
    "half safetensors": (lambda state: cast(state, torch.half), write_safetensors, ".safetensors"),
    "bfloat16 safetensors": (lambda state: cast(state, torch.bfloat16), write_safetensors, ".safetensors"),
    "float32 safetensors": (lambda state: state, write_safetensors, ".safetensors"),
    "TorchScript, OpenAI's types": (as_openai, write_torchscript, ".pt"),
    "TorchScript, half": (lambda state: cast(state, torch.half), write_torchscript, ".pt"),
    "training checkpoint, half": (
        lambda state: cast(state, torch.half),
        lambda state, path: write_torch(
            {"epoch": 3, "name": "run", "state_dict": {f"module.{key}": value for key, value in state.items()}}, path
        ),
        ".pt",
    ),
    "compiled and distributed": (
        as_openai,
        lambda state, path: write_torch({f"module._orig_mod.{key}": value for key, value in state.items()}, path),
        ".pt",
    ),
    "state dict of OpenAI's archive": (
        as_openai,
        lambda state, path: write_torch({**state, "input_resolution": torch.tensor(48)}, path),
        ".pt",
    ),
    "logit_scale as one number of a list": (
        lambda state: {**cast(state, torch.half), "logit_scale": state["logit_scale"].reshape(1)},
        write_torch,
        ".pt",
    ),
}


def write(form: str, state: State, folder: Path) -> tuple[Path, State]:
    """A file of a form, and its tensors in float32."""
    types, writer, suffix = FORMS[form]
    stored = types(state)
    return writer(stored, folder / f"weights{suffix}"), cast(stored, torch.float32)

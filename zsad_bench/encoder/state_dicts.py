"""The state dict of a CLIP checkpoint: read from every form in which people have such files, and fitted to a model."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from open_clip.transformer import VisionTransformer
from safetensors import safe_open
from torch import Tensor, nn

from zsad_bench.core.errors import UserError

IMAGE_POSITIONS = "visual.positional_embedding"
TEXT_POSITIONS = ("positional_embedding", "text.positional_embedding")
# What DistributedDataParallel and torch.compile put before every name.
WRAPPERS = ("module.", "_orig_mod.")
# Numbers that OpenAI's archives hold beside the parameters; the last is a buffer of older versions of transformers.
NOT_PARAMETERS = ("input_resolution", "context_length", "vocab_size", "text.transformer.embeddings.position_ids")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def read_state(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a checkpoint, with the types that it has on disk.

    Read are safetensors files, files of ``torch.save`` that hold a state dict (plain, or under ``state_dict`` beside
    other plain values, its names as they are or behind ``module.``), and TorchScript archives, the form of OpenAI's
    release. Sparse token tables are expanded, see :func:`expand_token_rows`.

    Raises:
        UserError: the file is damaged, holds Python objects that could run code, or holds something else than tensors.
    """
    try:
        content = _read_file(path)
    except OSError as error:
        raise UserError(f"{path}: not a readable checkpoint ({error.strerror or error})") from None
    except Exception as error:  # torch.load raises whatever the unpickler meets
        detail = str(error).split("WeightsUnpickler error:")[-1].strip()[:160] or "no details"
        raise UserError(
            f"{path}: not a readable checkpoint of plain tensors ({type(error).__name__}: {detail}); give a "
            ".safetensors file, a TorchScript archive, or a .pt file that holds a state dict"
        ) from None
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"{path}: not a checkpoint: it holds a {type(content).__name__} without a state dict")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"{path}: not a checkpoint of tensors: {key} is a {type(value).__name__}; give a file that holds a "
                "state dict, plain or under the key state_dict"
            )
    return expand_token_rows(_without_wrappers({str(key): value for key, value in state.items()}), path)


def _read_file(path: Path) -> object:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    if _is_torchscript(path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # advice of torch to those who make such archives
            return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip file with constants beside its code, which torch.save has not."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _without_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    while prefix := next((one for one in WRAPPERS if all(key.startswith(one) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def expand_token_rows(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rebuild a token table of which only the used rows were stored; unused rows are zero.

    Keys ``token_embedding.rows`` (n,) and ``token_embedding.values`` (n, width) become ``token_embedding.weight``
    (49408, width) float32. A state without them is returned as it is.

    Raises:
        UserError: the two tensors do not belong together.
    """
    rows, values = state.get("token_embedding.rows"), state.get("token_embedding.values")
    if rows is None:
        return state
    vocabulary = open_clip.SimpleTokenizer().vocab_size
    if rows.ndim != 1 or values is None or values.ndim != 2 or len(values) != len(rows):
        raise UserError(f"{path}: damaged: token_embedding.values must have a row for each of token_embedding.rows")
    if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < vocabulary:
        raise UserError(f"{path}: token_embedding.rows names tokens outside the vocabulary of {vocabulary}")
    table = torch.zeros(vocabulary, values.shape[1])
    table[rows.long()] = values.float()
    others = {key: tensor for key, tensor in state.items() if not key.startswith("token_embedding.")}
    return {**others, "token_embedding.weight": table}


def fit_state(state: dict[str, Tensor], model: nn.Module, path: Path, name: str) -> dict[str, Tensor]:
    """The state as ``model.load_state_dict`` takes it, with the steps of open_clip's own loader.

    Position embeddings of another number of patches or tokens are interpolated in float32, whatever the checkpoint's
    type is (bicubic with antialiasing for images, linear for text), and stay float32 until they are copied into the
    model; bicubic interpolation exists for no 16-bit type on a CPU.

    Args:
        state: name -> tensor, of any floating-point types.
        model: an open_clip model with a plain ViT.
        path: of the checkpoint, for messages.
        name: of the model, for messages.

    Raises:
        UserError: a tensor is missing, too many, of another shape, quantised, sparse, or its positions are on no
            square grid.
    """
    own = model.state_dict()
    if TEXT_POSITIONS[0] in state and TEXT_POSITIONS[0] not in own:
        state = convert_to_custom_text_state_dict(state)
    state = {key: tensor for key, tensor in state.items() if key in own or key not in NOT_PARAMETERS}
    for key, tensor in state.items():
        if tensor.layout is not torch.strided:
            raise UserError(f"{path}: tensor {key} is sparse and cannot be loaded; give a file of dense tensors")
        if key in own and own[key].is_floating_point() and tensor.dtype not in FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{path}: tensor {key} is {kind}; quantised weights cannot be read, give them in float16, "
                "bfloat16 or float32"
            )
    state.update(_image_positions(state, own, model, path))
    state.update(_text_positions(state, own, model, path))
    _refuse_other_architecture(own, state, path, name)
    # Older checkpoints keep single numbers such as logit_scale as (1,).
    return {
        key: tensor if tensor.shape == own[key].shape else tensor.reshape(own[key].shape)
        for key, tensor in state.items()
    }


def _other_length(key: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Whether position embeddings differ from the model's in their number alone."""
    if key not in state or key not in own or state[key].ndim != 2:
        return False
    (length, width), (own_length, own_width) = state[key].shape, own[key].shape
    return length != own_length and width == own_width


def _image_positions(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], model: nn.Module, path: Path
) -> dict[str, Tensor]:
    if not _other_length(IMAGE_POSITIONS, state, own):
        return {}
    rows = len(state[IMAGE_POSITIONS])
    side = math.isqrt(max(0, rows - 1))
    if side == 0 or side * side != rows - 1:
        height, width = cast(VisionTransformer, model.visual).grid_size
        raise UserError(
            f"{path}: tensor {IMAGE_POSITIONS} has {rows} rows, which are not one for the class token and a square "
            f"grid (1 + n x n), so they cannot be interpolated to the {height} x {width} patches of encoder.image_size"
            "; give weights of a ViT that has a class token and was trained on square images"
        )
    resized = {IMAGE_POSITIONS: state[IMAGE_POSITIONS].float()}
    resize_pos_embed(resized, model)
    return resized


def _text_positions(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], model: nn.Module, path: Path
) -> dict[str, Tensor]:
    from zsad_bench.core import console

    key = next((key for key in TEXT_POSITIONS if _other_length(key, state, own)), None)
    if key is None:
        return {}
    console.warn(
        f"{path}: position embeddings of {len(state[key])} text tokens are interpolated to text_cfg.context_length="
        f"{len(own[key])}, as open_clip does; the text tower was not trained for that"
    )
    resized = {key: state[key].float()}
    resize_text_pos_embed(resized, model)
    return resized


def _refuse_other_architecture(own: Mapping[str, Tensor], state: Mapping[str, Tensor], path: Path, name: str) -> None:
    hint = f"the weights are of another architecture than encoder.model={name}; give the model they were trained for"
    for key, tensor in own.items():
        if key not in state:
            raise UserError(f"{path}: has no tensor {key}; {hint}")
        got, expected = tuple(state[key].shape), tuple(tensor.shape)
        if got != expected and not state[key].numel() == tensor.numel() == 1:
            raise UserError(f"{path}: tensor {key} is {got} where {expected} is expected; {hint}")
    extra = sorted(set(state) - set(own))
    if extra:
        raise UserError(f"{path}: has {len(extra)} tensors the model lacks, first {extra[0]}; {hint}")

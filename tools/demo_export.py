"""Writing and reading the demo encoder: open_clip's config and a sparse fp16 safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
from demo_model import CONFIG
from demo_text import Vocabulary
from open_clip.model import CLIP
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

NAME = "demo_clip"


def save(model: CLIP, vocabulary: Vocabulary, folder: Path, facts: dict[str, str]) -> Path:
    """Write demo_clip.json and demo_clip.safetensors; of the token table only the used rows are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    tensors = {key: value.detach().half().contiguous() for key, value in model.state_dict().items()}
    table = tensors.pop("token_embedding.weight")
    # Row 0 of the compact table is the unknown word; in the full table every absent row is zero.
    tensors["token_embedding.rows"] = torch.tensor(vocabulary.rows, dtype=torch.int32)
    tensors["token_embedding.values"] = table[1:].clone()
    metadata = {**facts, "vocabulary": " ".join(vocabulary.words), "state_words": " ".join(vocabulary.state_words)}
    path = folder / f"{NAME}.safetensors"
    save_file(tensors, path, metadata)
    # safetensors writes files only the owner can read; this one is packaged.
    path.chmod(0o644)
    return path


def expanded(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The full state dict open_clip expects (fp32), and the metadata."""
    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
        metadata = file.metadata() or {}
    state = {key: value if value.dtype == torch.int32 else value.float() for key, value in state.items()}
    if "token_embedding.rows" in state:
        rows, values = state.pop("token_embedding.rows"), state.pop("token_embedding.values")
        table = torch.zeros(CONFIG["text_cfg"]["vocab_size"], values.shape[1])
        table[rows.long()] = values
        state["token_embedding.weight"] = table
    return state, metadata


def load(path: Path) -> CLIP:
    """An unmodified open_clip model with the weights of `path` (strictly all of them)."""
    open_clip.add_model_config(path.with_name(f"{NAME}.json"))
    model = open_clip.create_model(NAME, require_pretrained=False)
    model.load_state_dict(expanded(path)[0], strict=True)
    return model.eval()

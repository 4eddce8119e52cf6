"""What the files of a model say without open_clip or torch: its config, its image size, the checksum of its weights."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict, cast

from safetensors import SafetensorError, safe_open

from zsad_bench.core.checksums import file_sha256
from zsad_bench.core.errors import UserError
from zsad_bench.core.names import did_you_mean


class ModelConfig(TypedDict, total=False):
    """The part of an open_clip model config that is read here; other keys pass through."""

    embed_dim: int
    vision_cfg: dict[str, object]
    text_cfg: dict[str, object]
    quick_gelu: bool
    custom_text: bool


def read_model_config(model: str) -> ModelConfig:
    """Model config of an open_clip name or of a JSON file; raises UserError naming near misses."""
    if model.endswith(".json"):
        path = local_path(model)
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"encoder.model={model}: no such file; give an open_clip model name or a model config JSON"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"encoder.model={model}: not a readable JSON file ({error})") from None
        config = config.get("model_cfg", config)
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
            raise UserError(
                f"encoder.model={model}: not an open_clip model config (needs embed_dim, vision_cfg, text_cfg)"
            )
        return cast(ModelConfig, config)
    if (bundled := _bundled_config(model)) is not None:
        return bundled
    import open_clip  # takes seconds, and is needed here for names alone that it has no file for

    config = open_clip.get_model_config(model)
    if config is None:
        raise UserError(
            f"encoder.model={model}: open_clip has no such model{did_you_mean(model, open_clip.list_models(), 3)}"
        )
    return cast(ModelConfig, config)


@cache
def _config_folder() -> Path | None:
    """Where open_clip keeps a JSON file for each of its models."""
    spec = find_spec("open_clip")
    places = spec.submodule_search_locations if spec is not None else None
    return Path(places[0]) / "model_configs" if places else None


def _bundled_config(model: str) -> ModelConfig | None:
    """The config of a name that open_clip has a file for, else None."""
    folder = _config_folder()
    path = None if folder is None else folder / f"{model}.json"
    if path is None or path.name != f"{model}.json" or not path.is_file():
        return None
    return cast(ModelConfig, json.loads(path.read_text(encoding="utf-8")))


def native_image_size(model: str) -> int:
    """Side in pixels that a model was trained at."""
    size = read_model_config(model)["vision_cfg"].get("image_size", 224)
    return size if isinstance(size, int) else 0


def local_path(text: str) -> Path:
    """A path as users write it; ``pkg://zsad_bench/folder/file`` names a file that comes with the package."""
    if text.startswith("pkg://"):
        package, _, rest = text.removeprefix("pkg://").partition("/")
        return Path(str(resources.files(package))) / rest
    return Path(text).expanduser()


def local_weights_sha256(pretrained: str | None) -> str | None:
    """Hash of a weights file; None for tags, random weights and files that do not exist."""
    path = local_path(pretrained) if pretrained else None
    return file_sha256(path) if path is not None and path.is_file() else None


def file_metadata(path: Path) -> dict[str, str]:
    """Text metadata of a safetensors file; empty for other files. Raises UserError for a damaged one."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="np") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: not a readable checkpoint of plain tensors ({error})") from None

"""Find CLIP weights (tag, local file, or none) and load them into an open_clip model, or say in one line why not."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import open_clip
from torch import nn

from zsad_bench.core.checksums import file_sha256
from zsad_bench.core.errors import UserError
from zsad_bench.core.names import did_you_mean
from zsad_bench.encoder.model_files import local_path, read_model_config
from zsad_bench.encoder.state_dicts import fit_state, read_state

HUB_FILE = "open_clip_model.safetensors"
DEMO_HINT = "to try the pipeline without them use encoder=demo dataset=demo"


@dataclass(frozen=True)
class Weights:
    """Where weights come from.

    Attributes:
        path: local file, or None for random initialisation.
        sha256: of a file that the user gave; None for tags (open_clip checks those) and random weights.
    """

    path: Path | None = None
    sha256: str | None = None


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _tags_by_file(model: str) -> dict[str, str]:
    """Release file name -> tag, for the tags of a model that open_clip loads from a URL of their own."""
    urls = {tag: open_clip.get_pretrained_url(model, tag) for tag in open_clip.list_pretrained_tags_by_model(model)}
    return {Path(url).name: tag for tag, url in urls.items() if url}


def find_weights(model: str, pretrained: str | None, sha256: str | None = None) -> Weights:
    """Resolve ``encoder.pretrained`` to a local file, downloading a tag's file if need be.

    Raises:
        UserError: unknown tag, missing file, wrong checksum, QuickGELU mismatch between tag and model, or no network.
    """
    if pretrained is None:
        return Weights()
    path = local_path(pretrained)
    if path.suffix in {".pt", ".pth", ".bin", ".safetensors"} or path.exists():
        if not path.is_file():
            raise UserError(f"encoder.pretrained={pretrained}: no such weights file")
        _refuse_wrong_gelu(model, _tags_by_file(model).get(path.name), path.name)
        actual = file_sha256(path)
        if sha256 is not None and actual != sha256:
            raise UserError(
                f"{path}: its SHA-256 is {actual[:12]}... and encoder.sha256 asks for {sha256[:12]}...: the file is "
                "damaged or another one; restore it (for bundled weights reinstall zsad-bench)"
            )
        return Weights(path, actual)
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained not in tags:
        raise UserError(
            f"encoder.pretrained={pretrained}: {Path(model).name} has no such tag{did_you_mean(pretrained, tags, 3)}; "
            "a local .pt or .safetensors file works too"
        )
    _refuse_wrong_gelu(model, pretrained, f"tag {pretrained}")
    return Weights(_download(model, pretrained))


def _refuse_wrong_gelu(model: str, tag: str | None, source: str) -> None:
    """open_clip only warns when weights trained with QuickGELU meet exact GELU; the features are then wrong."""
    if tag is None:
        return
    trained = bool(open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False))
    built = bool(read_model_config(model).get("quick_gelu", False))
    if trained != built:
        base = model.removesuffix("-quickgelu")
        fitting = f"{base}-quickgelu" if trained else base
        raise UserError(
            f"encoder.model={model}: {source} was trained {'with' if trained else 'without'} QuickGELU and this model "
            f"config is {'with' if built else 'without'} it; use encoder.model={fitting}"
        )


def _download(model: str, tag: str) -> Path:
    config = open_clip.get_pretrained_cfg(model, tag)
    # Some entries of open_clip's table point to the hub repository of another tag (ViT-B-16-plus-240 laion400m_e32
    # to ..._e31); the release file of the tag itself is right, so it wins unless the hub name carries the tag.
    hub, url = config.get("hf_hub", ""), config.get("url", "")
    from_hub = bool(hub) and (not url or _plain(tag) in _plain(hub))
    source = f"https://huggingface.co/{hub.strip('/')}/resolve/main/{HUB_FILE}" if from_hub else url
    hub_logger = logging.getLogger("huggingface_hub")
    level = hub_logger.level
    hub_logger.setLevel(logging.ERROR)  # its retries would bury the one line below
    try:
        return Path(open_clip.download_pretrained(config, prefer_hf_hub=from_hub))
    except Exception as error:
        place = (
            f"{HUB_FILE} of {hub.strip('/')} in the Hugging Face cache"
            if from_hub
            else f"~/.cache/clip/{Path(url).name}"
        )
        raise UserError(
            f"encoder.pretrained={tag}: the weights of {model} are not on this machine and could not be downloaded "
            f"({type(error).__name__}: {str(error)[:200]}); expected {place}. Fetch {source} where there is a network "
            f"and give the file as encoder.pretrained=<path>; {DEMO_HINT}"
        ) from None
    finally:
        hub_logger.setLevel(level)


def load_weights(model: nn.Module, weights: Weights, name: str) -> None:
    """Load a checkpoint strictly, position embeddings interpolated in float32 to the model's image size.

    The model's parameters are replaced, with the types that they had; they may lie on the meta device.

    Raises:
        UserError: a file that :mod:`~zsad_bench.encoder.state_dicts` cannot read, or weights of another architecture
            (names the first tensor that differs).
    """
    if weights.path is None:
        return
    state = fit_state(read_state(weights.path), model, weights.path, name)
    own = model.state_dict()
    # Assigned, not copied: the model's own parameters have no memory.
    model.load_state_dict({key: tensor.to(own[key].dtype) for key, tensor in state.items()}, assign=True)

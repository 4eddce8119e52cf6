"""What all jobs of a sweep ask of the images together, so that whichever job comes first encodes it for all of them.

The union is written into the results folder before the sweep starts, because the jobs may run in other processes or on
other machines; under the name of the sweep's command, because it is nothing to jobs of other commands.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from zsad_bench.config.compose import plain
from zsad_bench.config.plugins import build
from zsad_bench.config.schema import NOT_IN_FEATURES
from zsad_bench.contract import FeatureRequest, Method, Stream, Tap
from zsad_bench.core.errors import UserError
from zsad_bench.core.files import write_atomic
from zsad_bench.encoder.plan import encoder_spec


def target(config: DictConfig) -> str:
    """What jobs have in common that read the same features: a hash of encoder and dataset."""
    encoder = {key: value for key, value in plain(config.encoder).items() if key not in NOT_IN_FEATURES}
    content = json.dumps([encoder, plain(config.dataset)], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def union_of(configs: Iterable[DictConfig]) -> dict[str, FeatureRequest]:
    """Target -> everything that the methods of these jobs ask for.

    A job whose method or encoder cannot be set up adds nothing: it will say why itself.
    """
    found: dict[str, FeatureRequest] = {}
    asked = set()
    for config in configs:
        key = target(config)
        same = (key, config.seed, json.dumps(plain(config.method), sort_keys=True, default=str))
        if same in asked:  # jobs of other batch sizes
            continue
        asked.add(same)
        try:
            spec = encoder_spec(config.encoder.model, config.encoder.pretrained, config.encoder.image_size)
            method = build(config.method, Method, "method")
            method.attach(spec, config.seed)
            request = method.request().resolve(spec.n_blocks)
        except (UserError, ValueError):
            continue
        found[key] = found[key].union(request) if key in found else request
    return found


def write_union(path: Path, requests: Mapping[str, FeatureRequest]) -> None:
    """Write the union of a sweep into its file (:attr:`~zsad_bench.results.commands.Command.request_file`)."""
    content = {key: asdict(request) for key, request in requests.items()}
    write_atomic(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def read_union(path: Path, config: DictConfig) -> FeatureRequest | None:
    """What a sweep asks of the images of one of its jobs; None if there is no such file, as for a single job."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")).get(target(config))
    except (OSError, ValueError):
        return None
    return None if content is None else _request(content)


def _request(content: dict[str, list[dict[str, object]]]) -> FeatureRequest:
    taps = []
    for tap in content["taps"]:
        stream = tap.pop("stream")
        if isinstance(stream, dict):
            tap["stream"] = Stream(**{**stream, "attention": tuple(stream["attention"])})
        taps.append(Tap(**tap))  # type: ignore[arg-type]
    return FeatureRequest(tuple(taps), tuple(content["windows"]), tuple(content["views"]))  # type: ignore[arg-type]

"""Train a method on an auxiliary dataset: ``python -m zsad_bench.train method=clip_ad_plus dataset=visa ...``.

    python -m zsad_bench.train method=clip_ad_plus dataset=visa dataset.root=/data/visa output=visa.safetensors
    python -m zsad_bench method=clip_ad_plus method.checkpoint=visa.safetensors dataset=mvtec dataset.root=/data/mvtec

The dataset must have masks and must not be the one that is evaluated later. An interrupted training goes on after the
last finished epoch when the same command is given again. Keys, besides method=, dataset=, encoder= and theirs:

"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from zsad_bench.config.compose import compose_config
from zsad_bench.config.plugins import build
from zsad_bench.config.schema import GROUPS
from zsad_bench.contract import Dataset, Method, TrainableMethod
from zsad_bench.core import console
from zsad_bench.core.errors import UserError
from zsad_bench.core.names import did_you_mean, readable_name
from zsad_bench.engine.compute import configured_encoder
from zsad_bench.engine.dataset_names import dataset_label
from zsad_bench.training.loop import TrainingOptions, train


def main(arguments: list[str] | None = None) -> int:
    """Run the training program and return its exit code: 0 done, 2 a mistake of the user, 130 interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(given):
        console.out.print(f"{__doc__}{_defaults()}", markup=False, soft_wrap=True)
        return 0
    try:
        run(given)
    except UserError as error:
        console.fail(str(error))
        return 2
    except KeyboardInterrupt:
        console.fail("interrupted; the same command goes on after the last finished epoch")
        return 130
    return 0


def run(overrides: Sequence[str]) -> Path:
    """Train as the overrides say; returns the path of the checkpoint.

    Raises:
        UserError: an unknown key or value, a method without parameters, or data that cannot be trained on.
    """
    composed = [text for text in overrides if _belongs_to_a_group(text)]
    options = training_options([text for text in overrides if not _belongs_to_a_group(text)])
    if not any(text.startswith("dataset=") for text in composed):
        raise UserError("dataset=<name>: say which auxiliary dataset to train on; it must have masks")
    if not any(text.startswith("method=") for text in composed):
        composed.append("method=clip_ad_plus")
    config = compose_config(composed)
    method = build(config.method, Method, "method")
    if not isinstance(method, TrainableMethod):
        raise UserError(f"method={method.name}: has nothing to train; use method=clip_ad_plus")
    dataset = build(config.dataset, Dataset, "dataset")
    encoder = configured_encoder(config).load()
    if encoder.weights.path is None:
        console.warn("encoder.pretrained=null: the encoder's weights are random, so the training means nothing")
    stem = "_".join(map(readable_name, (method.name, dataset_label(dataset), encoder.spec.name)))
    output = Path(options.output or f"checkpoints/{stem}.safetensors")
    if train(method, dataset, encoder, options, output):
        console.out.print(f"checkpoint: {output}", soft_wrap=True)
    else:
        console.out.print(f"checkpoint: {output} (finished before with these settings)", soft_wrap=True)
    return output


def _belongs_to_a_group(text: str) -> bool:
    return text.lstrip("+~").partition("=")[0].split(".")[0] in (*GROUPS, "hydra")


def _defaults() -> str:
    return (resources.files("zsad_bench.conf") / "train.yaml").read_text("utf-8")


def training_options(overrides: Sequence[str] = ()) -> TrainingOptions:
    """Keys of ``conf/train.yaml`` with some changed, given as ``key=value``.

    Raises:
        UserError: an unknown key, or a value of the wrong type or range.
    """
    schema = OmegaConf.merge(OmegaConf.structured(TrainingOptions), OmegaConf.create(_defaults()))
    for text in overrides:
        key, equals, _ = text.partition("=")
        if not equals or key not in schema:
            raise UserError(f"{key}: no such key of the training program{did_you_mean(key, list(map(str, schema)))}")
    try:
        merged = OmegaConf.merge(schema, OmegaConf.from_dotlist(list(overrides)))
        return cast(TrainingOptions, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise UserError(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from None


if __name__ == "__main__":
    sys.exit(main())

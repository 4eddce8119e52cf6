"""Methods with trained parameters: the contract, and the training loop. CLIP itself stays frozen.

What a training leaves behind is a :class:`~zsad_bench.training.checkpoint.Checkpoint`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zsad_bench.contract import (
    SPLITS,
    Dataset,
    Facts,
    FeatureBatch,
    FeatureRequest,
    Sample,
    Split,
    TrainableMethod,
)
from zsad_bench.core import console
from zsad_bench.core.errors import UserError
from zsad_bench.core.seeds import named_seed
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.engine.batches import limited
from zsad_bench.engine.dataset_names import dataset_label
from zsad_bench.engine.identity import fingerprint
from zsad_bench.engine.measure import read_masks
from zsad_bench.feature_store.loading import load_batches
from zsad_bench.text.ensembles import load_ensemble
from zsad_bench.training.checkpoint import Checkpoint, encoder_facts, image_mark


@dataclass(frozen=True)
class TrainingOptions:
    """Keys of ``conf/train.yaml``, which says what each means."""

    epochs: int = 5
    batch_size: int = 8
    learning_rate: float = 1e-4
    shuffle: bool = False
    split: str = "test"
    limit: int | None = None
    seed: int = 42
    memory_mb: int = 2048
    output: str | None = None

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "limit"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"{key}={value}: must be at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"learning_rate={self.learning_rate}: must be above 0")
        if min(self.seed, self.memory_mb) < 0:
            raise UserError(f"seed={self.seed}, memory_mb={self.memory_mb}: must not be negative")
        if self.split not in SPLITS:
            raise UserError(f"split={self.split}: choose {' or '.join(SPLITS)}")
        if self.output is not None and not self.output.endswith(".safetensors"):
            raise UserError(f"output={self.output}: must end in .safetensors")


def train_step(
    method: TrainableMethod, optimizer: torch.optim.Optimizer, batch: FeatureBatch, text: Tensor, masks: Tensor
) -> Tensor:
    """One step on one batch; returns the loss before it, a scalar that stays on the device.

    Arguments as in :meth:`TrainableMethod.training_loss`.
    """
    loss = method.training_loss(batch, text, masks)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def make_optimizer(parameters: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Adam as the training program uses it."""
    return torch.optim.Adam(parameters.parameters(), lr=learning_rate)


class _TrainingSet:
    """Training images with their masks, encoded when first needed and kept as far as memory allows.

    They are kept in the memory of the host, which has more of it, and move to the device batch by batch.
    """

    def __init__(
        self, dataset: Dataset, samples: Sequence[Sample], encoder: ClipEncoder, request: FeatureRequest, memory_mb: int
    ) -> None:
        self.dataset, self.samples, self.encoder, self.request = dataset, samples, encoder, request
        self.memory_left = memory_mb * 2**20
        self.kept: dict[Sample, tuple[FeatureBatch, Tensor]] = {}

    def batches(self, order: Sequence[int], size: int) -> Iterator[tuple[list[Sample], FeatureBatch, Tensor]]:
        """Samples, features and masks (B, H, W) of batch after batch, in the given order."""
        ordered = [self.samples[index] for index in order]
        groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        missing = [[sample for sample in group if sample not in self.kept] for group in groups]
        loader = load_batches(self.dataset, missing, self.encoder.geometry)
        for group, loaded in zip(groups, loader, strict=True):
            fresh = self._encode(loaded.samples, loaded.pixels) if loaded.samples else {}
            parts = [fresh.get(sample) or self.kept[sample] for sample in group]
            features = FeatureBatch.concatenate([part for part, _ in parts]).to(self.encoder.device)
            yield group, features, torch.stack([mask for _, mask in parts]).to(features.class_tokens)

    def _encode(
        self, samples: Sequence[Sample], pixels: NDArray[np.uint8]
    ) -> dict[Sample, tuple[FeatureBatch, Tensor]]:
        images = self.encoder.normalise(pixels)
        batch = self.encoder.encode(images, self.request, [sample.image_id for sample in samples])
        batch = batch.to(torch.device("cpu"))
        masks = read_masks(self.dataset, samples, self.encoder.geometry)
        fresh = {}
        for index, (sample, mask) in enumerate(zip(samples, masks, strict=True)):
            # Copies are ordinary tensors: those made in inference mode cannot take part in a backward pass.
            features = batch.select([index])
            fresh[sample] = features, torch.from_numpy(mask)
            size = features.nbytes
            if size <= self.memory_left:
                self.memory_left -= size
                self.kept[sample] = fresh[sample]
        return fresh


def training_samples(dataset: Dataset, options: TrainingOptions) -> list[Sample]:
    """Images whose anomalous pixels are known, category after category, in the order of their names.

    Raises:
        UserError: the split has no anomalous image with a mask.
    """
    split: Split = "train" if options.split == "train" else "test"
    samples = [
        sample
        for category in dataset.categories
        for sample in limited(dataset.samples(category, split), options.limit)
        if sample.label == 0 or (sample.label == 1 and sample.mask_path is not None)
    ]
    if not any(sample.label == 1 for sample in samples):
        raise UserError(
            f"{dataset.root}: no anomalous {split} image has a mask, and training needs masks; use another dataset"
            + (", or split=test" if split == "train" else "")
        )
    return samples


def provenance(
    method: TrainableMethod, dataset: Dataset, samples: Sequence[Sample], encoder: ClipEncoder, options: TrainingOptions
) -> Facts:
    """Facts of a checkpoint: everything that its tensors depend on."""
    choices = {key: str(value) for key, value in asdict(options).items() if key not in ("output", "memory_mb", "limit")}
    return {
        **method.must_match(),
        **encoder_facts(encoder.spec),
        "encoder.image_size": str(encoder.spec.image_size),
        "encoder.resize": encoder.geometry.resize,
        "encoder.precision": encoder.precision,
        **({"encoder.sha256": encoder.weights.sha256} if encoder.weights.sha256 else {}),
        **method.training_settings(),
        **choices,
        "dataset": dataset_label(dataset),
        "protocol": dataset.protocol,
        "categories": " ".join(dict.fromkeys(sample.category for sample in samples)),
        "n_images": str(len(samples)),
        "n_anomalous": str(sum(sample.label == 1 for sample in samples)),
        "fingerprint": fingerprint(samples),
        "images": " ".join(image_mark(sample.image_id) for sample in samples),
    }


def train(
    method: TrainableMethod, dataset: Dataset, encoder: ClipEncoder, options: TrainingOptions, output: Path
) -> list[float]:
    """Train a method and write its checkpoint.

    After every epoch the state is kept beside ``output`` (``.part``); an interrupted training goes on from there when
    it is started again with the same settings, and gives the same result as one that was never interrupted.

    Returns:
        Mean loss of each epoch; empty if ``output`` is finished already.

    Raises:
        UserError: no masks, an unreadable file, or an ``output`` that was trained with other settings.
    """
    samples = training_samples(dataset, options)
    parameters = method.begin_training(encoder.spec, options.seed).to(encoder.device)
    facts = provenance(method, dataset, samples, encoder, options)
    if output.exists() and _is_finished(output, facts):
        return []
    optimizer = make_optimizer(parameters, options.learning_rate)
    part = output.with_name(f"{output.name}.part")
    losses = _resume(part, facts, parameters, optimizer)
    text = _text(method, dataset, encoder, facts["categories"].split())
    source = _TrainingSet(dataset, samples, encoder, method.training_request(), options.memory_mb)
    with console.progress() as bar:
        task = bar.add_task("", total=options.epochs * len(samples), completed=len(losses) * len(samples))
        for epoch in range(len(losses), options.epochs):
            bar.update(task, description=f"{method.name} epoch {epoch + 1}/{options.epochs}")
            image_losses: list[Tensor] = []
            for group, batch, masks in source.batches(_order(len(samples), epoch, options), options.batch_size):
                vectors = torch.stack([text[sample.category] for sample in group])
                image_losses += [train_step(method, optimizer, batch, vectors, masks)] * len(group)
                bar.advance(task, len(group))
            losses.append(torch.stack(image_losses).cpu().double().mean().item())
            _keep(part, facts, parameters, optimizer, losses)
            console.err.print(f"epoch {epoch + 1}/{options.epochs}: mean loss {losses[-1]:.4f}")
    Checkpoint(parameters.state_dict(), {**facts, "losses": _numbers(losses)}).save(output)
    part.unlink()
    return losses


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6f}" for value in values)


def _is_finished(output: Path, facts: Facts) -> bool:
    """Whether ``output`` is the result of this very training; raises UserError if it is another one."""
    existing = Checkpoint.load(output).facts
    different = next((key for key, value in facts.items() if existing.get(key) != value), None)
    if different is not None:
        values = "" if different == "images" else f" ({existing.get(different)}, now {facts[different]})"
        raise UserError(
            f"output={output}: exists and was trained with another {different}{values}; give another output=<file>"
        )
    return True


def _text(
    method: TrainableMethod, dataset: Dataset, encoder: ClipEncoder, categories: Sequence[str]
) -> dict[str, Tensor]:
    """Text vectors (2, D) by category on the encoder's device, with gradients allowed to pass."""
    assert method.prompts is not None
    ensemble, cache, vectors = load_ensemble(method.prompts), encoder.texts, {}
    for category in categories:
        name = dataset.class_name(category) if ensemble.class_names == "readable" else category
        features = cache.features(ensemble, name, dataset.is_texture(category))
        vectors[category] = method.text_vectors(features).clone()
    return vectors


def _order(count: int, epoch: int, options: TrainingOptions) -> list[int]:
    if not options.shuffle:
        return list(range(count))
    random = np.random.default_rng(named_seed(options.seed, f"epoch {epoch}"))
    return [int(index) for index in random.permutation(count)]


def _keep(
    part: Path, facts: Facts, parameters: nn.Module, optimizer: torch.optim.Optimizer, losses: Sequence[float]
) -> None:
    """Write parameters and the optimiser's state."""
    state = optimizer.state_dict()["state"]
    moments = {f"optimizer.{index}.{key}": tensor for index, item in state.items() for key, tensor in item.items()}
    tensors = {f"parameters.{key}": tensor for key, tensor in parameters.state_dict().items()}
    # The losses are written exactly, so that an interrupted training records what an uninterrupted one does.
    exact = " ".join(loss.hex() for loss in losses)
    Checkpoint({**tensors, **moments}, {**facts, "losses": exact}).save(part)


def _resume(part: Path, facts: Facts, parameters: nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
    """Bring back what :func:`_keep` wrote, if it belongs to this training; returns the losses of finished epochs."""
    try:
        kept = Checkpoint.load(part, facts)
    except UserError:
        return []
    names = {key.removeprefix("parameters."): key for key in kept.tensors if key.startswith("parameters.")}
    parameters.load_state_dict({name: kept.tensors[key] for name, key in names.items()})
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in kept.tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    losses = [float.fromhex(loss) for loss in kept.facts["losses"].split()]
    console.err.print(f"going on after epoch {len(losses)}: {part}", soft_wrap=True)
    return losses

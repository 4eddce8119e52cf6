"""Python API: methods on images, methods on datasets, without the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from zsad_bench.config.compose import compose_config
from zsad_bench.config.plugins import build
from zsad_bench.contract import Dataset, Method, Prediction
from zsad_bench.core.errors import UserError
from zsad_bench.data.images import read_image_file
from zsad_bench.encoder.clip import ClipEncoder
from zsad_bench.engine.evaluator import EvaluationOptions, Evaluator
from zsad_bench.feature_store.source import FeatureSource
from zsad_bench.results.rows import CategoryResult
from zsad_bench.text.ensembles import load_ensemble

Images = Sequence[Image.Image | str | Path] | Tensor
Value = str | int | float | bool | None | Sequence["Value"] | Mapping[str, "Value"]


class BoundMethod:
    """A method together with the encoder it uses.

    Attributes:
        method: the plugin.
        encoder: the encoder.
    """

    def __init__(self, method: Method, encoder: ClipEncoder) -> None:
        self.method = method
        self.encoder = encoder
        self._ensemble = load_ensemble(method.prompts) if method.prompts else None
        method.attach(encoder.spec)
        self._request = method.request()

    def predict_images(
        self,
        images: Images,
        class_name: str,
        is_texture: bool = False,
        image_ids: Sequence[str] = (),
        references: Images | None = None,
    ) -> Prediction:
        """Scores and maps of images that are one batch of one category.

        Args:
            images: PIL images or paths, or an already normalised float tensor (B, 3, S, S) on any device.
            class_name: the noun for prompts, put in as it is ("metal nut").
            is_texture: a surface rather than an object; some prompt ensembles differ.
            image_ids: names that seed whatever is random inside a method; by default the position in the list.
            references: normal images of the category, for few-shot methods.

        Returns:
            ``scores`` (B,) and ``maps`` (B, S, S), float32 on the CPU, whatever the encoder's device; larger is more
            anomalous.

        Raises:
            UserError: no image, or a file that cannot be read.
            ValueError: a tensor of another shape.
        """
        if len(images) == 0:
            raise UserError("predict_images: the list of images is empty; give at least one image")
        text = None if self._ensemble is None else self.encoder.texts.features(self._ensemble, class_name, is_texture)
        self.method.prepare(text)
        if self.method.k_shot:
            if references is None or len(references) != self.method.k_shot:
                raise UserError(f"method.k_shot={self.method.k_shot}: predict_images needs as many references")
            self.method.take_references(self.encoder.encode(self._pixels(references), self._request))
        predictions = [self.method.predict(self.encoder.encode(self._pixels(images), self._request, image_ids))]
        (final,) = self.method.finalize(predictions)
        return Prediction(scores=final.scores.float().cpu(), maps=final.maps.float().cpu())

    def _pixels(self, images: Images) -> Tensor:
        if isinstance(images, Tensor):
            return images.float()
        opened = [image if isinstance(image, Image.Image) else read_image_file(Path(image)) for image in images]
        return self.encoder.preprocess(opened)


def load_method(name: str, encoder: ClipEncoder, **overrides: Value) -> BoundMethod:
    """A method by the name of its YAML in ``conf/method``.

    Args:
        name: for example ``winclip``.
        encoder: from :func:`~zsad_bench.encoder.loading.load_encoder`.
        **overrides: keys of the YAML with new values.

    Raises:
        UserError: unknown method or key (naming the nearest valid one), or a value of the wrong type or range.

    Example:
        >>> from zsad_bench import load_encoder
        >>> files = "pkg://zsad_bench/demo_encoder/demo_clip"  # the small encoder that comes with the package
        >>> encoder = load_encoder(f"{files}.json", f"{files}.safetensors")
        >>> method = load_method("winclip", encoder, temperature=0.05)
        >>> photo = Image.new("RGB", (80, 60), "grey")
        >>> prediction = method.predict_images([photo, photo], class_name="metal nut")
        >>> tuple(prediction.scores.shape), tuple(prediction.maps.shape)
        ((2,), (2, 112, 112))
        >>> load_method("winclip", encoder, temprature=0.05)
        Traceback (most recent call last):
        zsad_bench.core.errors.UserError: method.temprature: no such key; did you mean method.temperature?
    """
    config = compose_config([f"method={name}", *_as_overrides("method", overrides)])
    return BoundMethod(build(config.method, Method, "method"), encoder)


def load_dataset(name: str, **overrides: Value) -> Dataset:
    """A dataset by the name of its YAML in ``conf/dataset``; ``root=...`` says where it lies.

    Raises:
        UserError: unknown dataset or key, or a value of the wrong type.
    """
    config = compose_config([f"dataset={name}", *_as_overrides("dataset", overrides)])
    return build(config.dataset, Dataset, "dataset")


def evaluate(
    method: BoundMethod,
    dataset: Dataset,
    batch_size: int | str = 8,
    seed: int = 0,
    sweep200: bool = False,
    last_batch: str = "fill",
) -> list[CategoryResult]:
    """Evaluate a method on all selected categories of a dataset, in memory; nothing is written.

    The arguments are those of ``conf/config.yaml``. The method itself is left as it is.

    Returns:
        One result per category, with metrics (fractions) and the score of every image.
    """
    source = FeatureSource(dataset, method.encoder)
    evaluator = Evaluator(source, method.method, EvaluationOptions(batch_size, last_batch, seed, sweep200=sweep200))
    return [evaluator.evaluate(category, dataset.samples(category)).result for category in dataset.categories]


def _as_overrides(group: str, values: Mapping[str, Value]) -> list[str]:
    return [f"{group}.{key}={_literal(value)}" for key, value in values.items()]


def _literal(value: Value) -> str:
    """A value in Hydra's override grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_literal(str(key))}:{_literal(item)}" for key, item in value.items()) + "}"
    if not isinstance(value, str) and isinstance(value, Sequence):
        return "[" + ",".join(_literal(item) for item in value) + "]"
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"

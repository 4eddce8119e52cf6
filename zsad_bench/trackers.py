"""Experiment trackers, off by default: ``tracker=mlflow``, ``tracker=tensorboard`` or ``tracker=wandb``.

A tracker gets each finished job once: its configuration, the metrics of every category and their means, and the
pictures of its maps. Result files stay the only source of tables and reports; a tracker is a copy for looking at.
"""

from __future__ import annotations

import json
import math
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

from omegaconf import OmegaConf

from zsad_bench.core.errors import UserError
from zsad_bench.results.files import JobFolder
from zsad_bench.results.rows import mean_metrics


@dataclass(frozen=True)
class Finished:
    """What a tracker is told about a job.

    Attributes:
        name: the job's folder name.
        params: the configuration, one text per dotted key.
        metrics: ``<category>/<metric>`` and ``mean/<metric>``; undefined ones are left out.
        pictures: files of maps.
    """

    name: str
    params: dict[str, str]
    metrics: dict[str, float]
    pictures: list[Path]


def finished(folder: JobFolder) -> Finished:
    """A job from its files."""
    results = [result for category in folder.info.categories if (result := folder.load(category)) is not None]
    metrics = {f"{result.category}/{name}": value for result in results for name, value in result.metrics.items()}
    if len(results) == len(folder.info.categories):
        metrics |= {f"mean/{name}": value for name, value in mean_metrics(results)[0].items()}
    return Finished(
        folder.path.name,
        _flat(OmegaConf.to_container(OmegaConf.load(folder.path / "config.yaml"))),
        {name: value for name, value in metrics.items() if not math.isnan(value)},
        sorted((folder.path / "maps").glob("*.png")),
    )


def _flat(values: object, prefix: str = "") -> dict[str, str]:
    if isinstance(values, dict):
        return {name: text for key, value in values.items() for name, text in _flat(value, f"{prefix}{key}.").items()}
    return {prefix[:-1]: json.dumps(values) if isinstance(values, list) else str(values)}


class Tracker(ABC):
    """Base class of trackers. The constructor gets the keys of ``conf/tracker/<name>.yaml``."""

    needs: str = ""

    def __init__(self) -> None:
        if self.needs and find_spec(self.needs) is None:
            raise UserError(f"the tracker needs {self.needs}: pip install 'zsad-bench[{self.needs}]'")

    def log(self, folder: JobFolder) -> None:
        """Take note of a finished job."""
        self.send(finished(folder))

    @abstractmethod
    def send(self, job: Finished) -> None:
        """Hand a job over, and close whatever was opened, also after an error."""


class NoTracker(Tracker):
    """Nothing is tracked."""

    def log(self, folder: JobFolder) -> None:
        """Do nothing; the files are not even read."""

    def send(self, job: Finished) -> None:
        """Do nothing."""


class MlflowTracker(Tracker):
    """A run of an MLflow experiment per job.

    Args:
        uri: a folder, ``sqlite:///<file>`` (needs the full package ``mlflow``), or a tracking server.
        experiment: name of the experiment.
    """

    needs = "mlflow"

    def __init__(self, *, uri: str, experiment: str) -> None:
        super().__init__()
        self.uri, self.experiment = uri, experiment

    def send(self, job: Finished) -> None:
        """Parameters, metrics (``/`` separates category and metric) and pictures as artifacts."""
        import mlflow

        if "://" not in self.uri or self.uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # recent releases ask for this consent
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_experiment(self.experiment)
        with mlflow.start_run(run_name=job.name):
            mlflow.log_params(job.params)
            mlflow.log_metrics(job.metrics)
            for picture in job.pictures:
                mlflow.log_artifact(str(picture), "maps")


class TensorBoardTracker(Tracker):
    """An event file per job.

    Args:
        folder: log folder; a job gets a folder of its name in it.
    """

    needs = "tensorboard"

    def __init__(self, *, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)

    def send(self, job: Finished) -> None:
        """Scalars, the configuration as text, pictures as images."""
        import numpy as np
        from PIL import Image
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.folder / job.name)) as writer:
            for name, value in job.metrics.items():
                writer.add_scalar(name, value)
            writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in job.params.items()))
            for picture in job.pictures:
                with Image.open(picture) as opened:
                    writer.add_image(picture.stem, np.array(opened.convert("RGB")), dataformats="HWC")


class WandbTracker(Tracker):
    """A Weights & Biases run per job.

    Args:
        project: name of the project.
        mode: ``offline`` (files only; send them with ``wandb sync``), ``online`` or ``disabled``.
        folder: where offline runs lie.
    """

    needs = "wandb"

    def __init__(self, *, project: str, mode: str, folder: str) -> None:
        super().__init__()
        self.project, self.mode, self.folder = project, mode, Path(folder)

    def send(self, job: Finished) -> None:
        """Configuration, metrics and pictures."""
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self.project,
            name=job.name,
            config=job.params,
            mode=cast(Literal["offline", "online", "disabled"], self.mode),
            dir=str(self.folder),
            reinit="finish_previous",
        )
        try:
            run.log(job.metrics)
            run.log({f"maps/{picture.stem}": wandb.Image(str(picture)) for picture in job.pictures})
        finally:
            run.finish()

"""What a command leaves in its results folder: the key by which a job is told from others."""

from __future__ import annotations

from omegaconf import OmegaConf

from zsad_bench.config.compose import compose_config
from zsad_bench.results.commands import job_key


def test_what_tells_jobs_apart() -> None:
    base = job_key(compose_config(["method=musc"]))
    same = ("threads=2", "maps=none", "name=x", "encoder.device=cpu", "features=off", "shard=1/2", "overwrite=always")
    assert {job_key(compose_config(["method=musc", text])) for text in same} == {base}
    other = ("seed=1", "batch_size=4", "method.layers=[2]", "dataset.root=x", "encoder.precision=fp16", "on_error=skip")
    keys = {job_key(compose_config(["method=musc", text])) for text in other}
    assert len(keys | {base}) == len(other) + 1
    assert job_key(OmegaConf.create({"method": "???"})) == ""

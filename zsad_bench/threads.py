"""How many CPU threads one process uses."""

from __future__ import annotations

import os

import torch
from threadpoolctl import threadpool_limits


def limit_threads(threads: int | None) -> None:
    """Use so many CPU threads in this process from now on.

    Args:
        threads: None follows Slurm's ``SLURM_CPUS_PER_TASK`` if there is one, and otherwise changes nothing: joblib and
            Ray tell their workers by ``OMP_NUM_THREADS``, and without a launcher every core is used.
    """
    wanted = threads or int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
    if wanted:
        torch.set_num_threads(wanted)
        threadpool_limits(wanted)

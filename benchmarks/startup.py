"""How long commands take that compute little, in units of importing torch and open_clip, which every run must.

    python benchmarks/startup.py [--device cuda]

Each command is a process of its own; the shortest of several runs counts. Prints ratios, how many configurations Hydra
composes for a sweep of 18 jobs, and which of torch, open_clip and pandas a finished job imports; writes
results/benchmarks/startup.csv.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from side_by_side import Ratio, add_device_option, report, seconds

PYTHON = sys.executable
SWEEP = ["-m", "method=winclip,anoclip,clip_ad,musc,fiseclip,dual_image", "batch_size=1,4,16"]
# Runs the command line in this process, then prints how often Hydra composed and which packages were imported.
COUNTED = """
import sys
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from zsad_bench.cli.main import main

compose, count = ConfigLoaderImpl._load_configuration_impl, []
ConfigLoaderImpl._load_configuration_impl = lambda *given, **keys: count.append(1) or compose(*given, **keys)
code = main(sys.argv[1:])
print()
imported = [name for name in ("torch", "open_clip", "pandas") if name in sys.modules]
print(len(count), "compositions by Hydra; imported:", *imported)
sys.exit(code)
"""
JOB = ["-m", "zsad_bench", "dataset=demo", "dataset.categories=[tile]", "limit=8", "method=musc", "maps=none"]


def commands(job: list[str]) -> dict[str, list[str]]:
    """What is measured, with the arguments of the job among them."""
    return {
        "python alone": ["-c", "pass"],
        "import zsad_bench": ["-c", "import zsad_bench"],
        "zsad-bench --help": ["-m", "zsad_bench", "--help"],
        "zsad-bench data list": ["-m", "zsad_bench", "data", "list"],
        "a misspelt key": ["-m", "zsad_bench", "bacth_size=8"],
        "the same job again, finished": job,
        "the same job again, from stored features": [*job, "overwrite=always"],
        "a job of 8 images, nothing stored": [*job, "overwrite=always", "features=off"],
    }


def counted(arguments: list[str], environment: dict[str, str], folder: Path) -> str:
    """What ``COUNTED`` prints last."""
    command = [PYTHON, "-c", COUNTED, *arguments]
    done = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[-1]


def main() -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of every command, the shortest counts")
    add_device_option(parser)
    options = parser.parse_args()
    job = [*JOB, f"encoder.device={options.device}", "name=startup"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        environment = {**os.environ, "ZSAD_CACHE": str(folder / "cache"), "ZSAD_DATA": str(folder / "data")}

        def command(arguments: list[str], fails: bool = False) -> Callable[[], object]:
            def run() -> None:
                done = subprocess.run(
                    [PYTHON, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
                )
                if bool(done.returncode) != fails:
                    raise SystemExit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")

            return run

        command(job)()
        sweep = [*SWEEP, *JOB[2:5], "maps=none", f"encoder.device={options.device}", "name=startup_sweep"]
        command(["-m", "zsad_bench", *sweep])()
        print(f"a finished sweep of 18 jobs: {counted(sweep, environment, folder)}")
        print(f"a finished job: {counted(job[2:], environment, folder)}")
        runs = {name: command(arguments, name == "a misspelt key") for name, arguments in commands(job).items()}
        unit = "import torch, open_clip"
        found = seconds({unit: command(["-c", unit]), **runs}, options.rounds, time.perf_counter)
    ratios = [Ratio(f"{name} / {unit}", found[name] / found[unit]) for name in runs]
    report("startup", ratios, {"unit": f"{found[unit]:.2f} s", "device": options.device})


if __name__ == "__main__":
    main()

"""Train the demo encoder: a small CLIP on procedural inspection images. About an hour on two CPU cores.

    python tools/train_demo_encoder.py --seed 0 --output zsad_bench/demo_encoder
    python tools/train_demo_encoder.py --evaluate zsad_bench/demo_encoder/demo_clip.safetensors

Pool, checkpoints, losses (CSV) and figures (CSV) go to --work; an interrupted run goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

# A waiting thread that spins takes the core from its neighbour; set before the first parallel loop.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import numpy as np
import torch
from demo_eval import evaluate, summary, test_sets
from demo_export import NAME, load, save
from demo_losses import draw_batch, total_loss
from demo_model import CONFIG, AuxiliaryHeads, Forward, initialise, patchify
from demo_pool import Pool, build
from demo_text import CaptionWriter, Vocabulary
from numpy.random import Generator
from open_clip.model import CLIP
from torch import nn

from zsad_bench.datasets.demo.procedural import VERSION
from zsad_bench.datasets.demo.procedural.categories import TRAINED_DEFECTS

PAIRS_PER_STEP = 16
STEPS = 6500
# (share of the steps, factor of the learning rate): warm-up, flat, and down to nothing.
SCHEDULE = ((0.0, 0.0), (0.04, 1.0), (0.35, 1.0), (1.0, 0.0))
# Up to this share of the steps most patch tokens are dropped.
DROPPED = 0.8


def build_model(seed: int, pool: Pool, vocabulary: Vocabulary) -> CLIP:
    """A fresh model with the recipe's start values."""
    torch.manual_seed(seed)
    model = CLIP(**CONFIG)
    initialise(model, patchify(pool.images[:256, 0]), len(vocabulary.rows))
    return model


def optimisers(model: CLIP, heads: AuxiliaryHeads, bias: nn.Parameter) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the transformer blocks, AdamW for everything else."""
    matrices = [p for name, p in model.named_parameters() if "resblocks" in name and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=1.6e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    others = [{"params": rest}, {"params": [bias, *heads.parameters()]}]
    adamw = torch.optim.AdamW(others, lr=1.1e-3, betas=(0.9, 0.98), weight_decay=0.0)
    for optimiser in (muon, adamw):
        for group in optimiser.param_groups:
            group["base_lr"] = group["lr"]
    return [muon, adamw]


def rate(step: int, steps: int) -> float:
    """Factor of the learning rate: straight lines between the points of SCHEDULE."""
    at, factors = zip(*SCHEDULE, strict=True)
    return float(np.interp((step + 0.5) / steps, at, factors))


def step_seed(seed: int, step: int) -> Generator:
    """Every step has its own generator, so that a resumed run draws what an uninterrupted one would."""
    return np.random.default_rng([seed, step])


def chosen_pairs(seed: int, step: int, size: int) -> np.ndarray:
    """The pairs of a step: a fresh permutation of the pool per epoch."""
    per_epoch = size // PAIRS_PER_STEP
    order = np.random.default_rng([seed, 10**6 + step // per_epoch]).permutation(size)
    at = step % per_epoch * PAIRS_PER_STEP
    return order[at : at + PAIRS_PER_STEP]


def train(args: argparse.Namespace, pool: Pool, vocabulary: Vocabulary) -> CLIP:
    """Run or resume the schedule; returns the trained model (compact token table)."""
    model, bias = build_model(args.seed, pool, vocabulary), nn.Parameter(torch.tensor(-4.0))
    heads = AuxiliaryHeads(len(TRAINED_DEFECTS))
    forward, writer, optims = Forward(model), CaptionWriter(vocabulary), optimisers(model, heads, bias)
    checkpoint, log, start = args.work / f"seed{args.seed}.pt", args.work / f"losses_seed{args.seed}.csv", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        heads.load_state_dict(saved["heads"])
        bias.data.copy_(saved["bias"])
        for optimiser, state in zip(optims, saved["optims"], strict=True):
            optimiser.load_state_dict(state)
        start = saved["step"]
        rows = log.read_text().splitlines(keepends=True) if log.exists() else []
        log.write_text("".join(row for row in rows if not row[0].isdigit() or int(row.split(",")[0]) <= start))
        print(f"resumed at step {start}", flush=True)
    parameters = [*model.parameters(), *heads.parameters(), bias]
    summed: list[dict[str, float]] = []
    began, last_save = time.monotonic(), time.monotonic()
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    for step in range(start, args.steps):
        rng = step_seed(args.seed, step)
        kept = args.kept if step < DROPPED * args.steps else None
        batch = draw_batch(pool, rng, chosen_pairs(args.seed, step, len(pool)), kept)
        loss, parts = total_loss(forward, heads, writer, rng, batch, bias)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optims:
            for group in optimiser.param_groups:
                group["lr"] = group["base_lr"] * rate(step, args.steps)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.logit_scale.clamp_(0, np.log(100))
        summed.append(parts)
        if (step + 1) % args.log_every == 0:
            means = {name: float(np.mean([one[name] for one in summed])) for name in parts}
            _log(
                log,
                {"step": step + 1, **means, "scale": float(model.logit_scale.detach().exp())},
                began,
                step + 1 - start,
            )
            summed = []
        if stopped or time.monotonic() - last_save > 180 or step + 1 == args.steps:
            state = {"step": step + 1, "model": model.state_dict(), "heads": heads.state_dict(), "bias": bias.data}
            _store(checkpoint, {**state, "optims": [optimiser.state_dict() for optimiser in optims]})
            last_save = time.monotonic()
        if stopped:
            raise SystemExit(f"stopped after step {step + 1}; the same command goes on from there")
    return model


def _log(path: Path, row: dict[str, float], began: float, done: int) -> None:
    row = {name: round(value, 5) for name, value in row.items()}
    fresh = not path.exists() or not path.stat().st_size
    with path.open("a", encoding="utf-8", newline="") as file:
        out = csv.DictWriter(file, list(row))
        if fresh:
            out.writeheader()
        out.writerow(row)
    pace = done * 2 * PAIRS_PER_STEP / (time.monotonic() - began)
    print(f"{row} {pace:.0f} images/s", flush=True)


def _store(path: Path, content: dict[str, object]) -> None:
    draft = path.with_suffix(".tmp")
    torch.save(content, draft)
    draft.replace(path)


def pool_digest(pool: Pool) -> str:
    """Fingerprint of the training images."""
    return hashlib.sha256(pool.images[::50].tobytes()).hexdigest()


def report(path: Path, work: Path, workers: int, label: str) -> None:
    """Evaluate a weights file, print the table and write it as CSV."""
    frame = evaluate(load(path), test_sets(work / "evaluation", workers))
    frame.to_csv(work / f"evaluation_{label}.csv", index=False, float_format="%.4f")
    table = summary(frame)
    table.to_csv(work / f"evaluation_{label}_mean.csv", float_format="%.4f")
    print(table.round(3).to_string())


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of start values, batches and captions")
    parser.add_argument(
        "--output", type=Path, default=Path("zsad_bench/demo_encoder"), help="where the encoder is written"
    )
    parser.add_argument(
        "--work", type=Path, default=Path("results/demo_encoder"), help="pool, checkpoints, logs, figures"
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, help=f"steps of {PAIRS_PER_STEP} pairs; the schedule is stretched"
    )
    parser.add_argument("--pairs", type=int, default=15000, help="pairs in the pool")
    parser.add_argument("--kept", type=int, default=63, help="patch tokens kept in the first part of the schedule")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="rendering processes")
    parser.add_argument("--threads", type=int, default=0, help="torch threads (0: torch's choice)")
    parser.add_argument("--log-every", type=int, default=100, help="steps per line of the log")
    parser.add_argument("--evaluate", type=Path, default=None, help="only evaluate this weights file")
    parser.add_argument("--export", action="store_true", help="only write the last checkpoint as an encoder")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = arguments(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.evaluate is not None:
        report(args.evaluate, args.work, args.workers, args.evaluate.parent.name)
        return 0
    vocabulary = Vocabulary()
    if args.export:
        saved = torch.load(args.work / f"seed{args.seed}.pt")
        model = CLIP(**CONFIG)
        model.token_embedding = nn.Embedding(len(vocabulary.rows) + 1, CONFIG["text_cfg"]["width"])
        model.load_state_dict(saved["model"])
        steps, digest = saved["step"], "unfinished"
    else:
        pool = build(args.work / "pool", args.pairs, args.workers, lambda line: print(line, flush=True))
        model, steps, digest = train(args, pool, vocabulary), args.steps, pool_digest(pool)
    facts = {
        "generator_version": str(VERSION),
        "training_seed": str(args.seed),
        "steps": str(steps),
        "images_sha256": digest,
    }
    path = save(model, vocabulary, args.output, facts)
    print(f"{NAME}: {path.stat().st_size / 1e6:.2f} MB, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}")
    report(path, args.work, args.workers, f"seed{args.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

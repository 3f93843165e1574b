"""Train a small GPT with text positions rotated by nothing ("zero") and by position 0 ("identity"), and compare losses.

`python benchmarks/bench_rope_cond.py RUN [STEPS [SEEDS]]`: RUN is a run folder with codes of the demo. A fifth of the
pictures, the same ones each time, is held out; what is measured on them is the lowest validation loss of a run, and the
training loss at its end.
"""

import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from pipeline.train import main as train

SETTINGS = (
    "max_pictures=1000000", "validation=0.2", "validate_every=20", "log_every=20", "recall_pictures=0",
    "sample_every=0", "checkpoint_every=1000000", "tensorboard=false",
)  # fmt: skip


def losses(codes: Path, rope_cond: str, seed: int, steps: int) -> dict[str, float]:
    """Return the lowest validation loss of one run, its step, and the training loss at the end, in nats per code."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(codes, Path(folder) / "codes")
        settings = (*SETTINGS, f"rope_cond={rope_cond}", f"seed={seed}", f"steps={steps}")
        words = [word for setting in settings for word in ("--set", f"train.{setting}")]
        if train(["--recipe", "demo", "--out", folder, *words]):
            raise SystemExit("training failed")
        text = (Path(folder) / "train" / "pretrain" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    best = min((line for line in lines if "validation_loss" in line), key=lambda line: line["validation_loss"])
    trained = [line["loss"] for line in lines if "loss" in line]
    return {"validation": best["validation_loss"], "best_step": best["step"], "training": trained[-1]}


def main(run: Path, steps: int, seeds: int) -> None:
    """Print a line of each run, then mean and spread of both kinds."""
    found: dict[str, list[dict[str, float]]] = {"zero": [], "identity": []}
    for seed in range(seeds):
        for rope_cond, runs in found.items():
            runs.append(losses(run / "codes", rope_cond, seed, steps))
            print(json.dumps({"rope_cond": rope_cond, "seed": seed, **runs[-1]}), flush=True)
    for name in ("validation", "training"):
        for rope_cond, runs in found.items():
            values = [one[name] for one in runs]
            print(
                f"{name} loss, {rope_cond}: {statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"
                f" over {seeds} seeds"
            )


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[2:]] + [240, 3][len(sys.argv) - 2 :]
    main(Path(sys.argv[1]), *numbers)

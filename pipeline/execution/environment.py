"""The environment of a worker process: threads, GPU, no model hub."""

import os
from pathlib import Path

FIXED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
WORKERS = {**dict.fromkeys(FIXED, "1"), "TOKENIZERS_PARALLELISM": "false", "NO_ALBUMENTATIONS_UPDATE": "1"}
"""What is the same for every worker: one thread per maths library, and nothing asked of others' servers."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Says which GPUs a process sees."""
HUB = "HF_HUB_OFFLINE"
"""Says that models are not looked for on a hub, unless the user's environment says otherwise."""


def gpus() -> list[str]:
    """Return the indices of this machine's NVIDIA GPUs, without importing torch."""
    listed = os.environ.get(VISIBLE)
    if listed is not None:
        return [index for index in listed.split(",") if index.strip()]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i, _ in enumerate(sorted(folder.iterdir()))] if folder.is_dir() else []


def worker_environment(number: int | None) -> dict[str, str]:
    """Return a worker's environment: one thread per maths library, so that numbers do not depend on the machine's load;
    its GPU; no hub. `number`: which of this machine's workers it is, None for one that takes a GPU itself (see
    cards.py)."""
    cards = [] if number is None else gpus()
    return {
        **os.environ,
        **WORKERS,
        **({VISIBLE: cards[(number or 0) % len(cards)]} if cards else {}),
        HUB: os.environ.get(HUB, "1"),
        "PYTHONUNBUFFERED": "1",
    }

"""Train one GPT by this trainer's step and by LlamaGen's settings, in turns, in one run.

`python benchmarks/bench_train.py [MODEL [PICTURES]]`: none: GPT-XL and 32 pictures on a GPU, GPT-demo and 2 on a CPU.
Ours: codes and features as the loader gives them, prompts as wide as the longest caption's bucket, causal attention
without a mask, compiled on a GPU, bf16 there. LlamaGen's: pictures encoded by VQ-16 in the loop (TF32, no autocast),
prompts padded to 120, a dense mask, no compile. Captions have 8 to 20 tokens, as LAION-COCO's. The tokenizer has
stand-in weights, which take as long. Encoding alone is timed too, so that what it costs can be told apart.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.gpt import build_gpt
from pipeline.training.conditions import BUCKET
from pipeline.training.progress import peak_flops, picture_flops
from tokenize_shards.vq import build_vq

ROUNDS, LONGEST, GRID, WIDTH = 3, 120, 16, 2048


def captions(pictures: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return features (B, 120, C), padded on the left, and their lengths: 8 to 20 tokens."""
    lengths_B = torch.randint(8, 21, (pictures,))
    features_BTC = torch.randn(pictures, LONGEST, WIDTH)
    for row, length in enumerate(lengths_B.tolist()):
        features_BTC[row, : LONGEST - length] = 0
    return features_BTC.to(device), lengths_B.to(device)


def seconds(step: Callable[[], None], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main(name: str, pictures: int, device: torch.device) -> None:
    torch.manual_seed(0)
    on_gpu = device.type == "cuda"
    gpt = build_gpt(name, "text", GRID).to(device).train()
    vq = build_vq("VQ-16").to(device)
    optimizer = torch.optim.AdamW(gpt.parameters(), 1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=on_gpu)
    (features_BTC, lengths_B), pixels = captions(pictures, device), torch.rand(pictures, 3, 256, 256, device=device)
    codes_BN = torch.randint(0, 16384, (pictures, GRID**2), device=device)
    width = -(-int(lengths_B.max()) // BUCKET) * BUCKET
    short_BTC = features_BTC[:, -width:].contiguous()
    model = torch.compile(gpt) if on_gpu else gpt

    def encode() -> Tensor:
        with torch.no_grad():
            return vq.encode(pixels * 2 - 1)

    def update(loss: Tensor) -> None:
        loss.backward()
        torch.nn.utils.clip_grad_norm_(gpt.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def ours() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            loss = model(codes_BN, (short_BTC, lengths_B))
        update(loss)

    def llamagens() -> None:
        codes = encode().view(pictures, -1)
        with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
            loss = gpt(codes, (features_BTC, lengths_B), dense=True)
        update(loss)

    steps = {"ours": ours, "llamagens": llamagens, "encode": lambda: _drop(encode)}
    for step in steps.values():  # compiled, warm
        seconds(step, device)
    took = {key: [] for key in steps}
    for _ in range(ROUNDS):
        for key, step in steps.items():
            took[key].append(seconds(step, device))
    report(name, pictures, device, (took, picture_flops(gpt.spec, width)))


def _drop(make: Callable[[], Tensor]) -> None:
    make()


def report(name: str, pictures: int, device: torch.device, measured: tuple[dict[str, list[float]], float]) -> None:
    took, flops = measured
    median = {key: statistics.median(values) for key, values in took.items()}
    ratios = [theirs / mine for mine, theirs in zip(took["ours"], took["llamagens"], strict=True)]
    alike = [(theirs - code) / mine for mine, theirs, code in zip(*took.values(), strict=True)]
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    peak = peak_flops(card)
    found = {
        "model": name, "pictures": pictures, "device": card,
        "samples_per_s": round(pictures / median["ours"], 3),
        "llamagens_samples_per_s": round(pictures / median["llamagens"], 3),
        "ratio": round(statistics.median(ratios), 2), "ratio_without_encoding": round(statistics.median(alike), 2),
        "mfu": None if peak is None else round(pictures / median["ours"] * flops / peak, 3),
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1) if device.type == "cuda" else None,
    }  # fmt: skip
    print(f"{name} on {card}: ours {found['samples_per_s']} samples/s, LlamaGen's settings"
          f" {found['llamagens_samples_per_s']}: {found['ratio']}x, {found['ratio_without_encoding']}x without the"
          f" encoding in the loop; MFU {found['mfu']}")  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    defaults = ["GPT-XL", "32"] if device.type == "cuda" else ["GPT-demo", "2"]
    chosen = [*sys.argv[1:3], *defaults[len(sys.argv) - 1 :]]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    main(chosen[0], int(chosen[1]), device)

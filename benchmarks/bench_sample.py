"""Time our sampling beside the plain loop of LlamaGen's form, in turns: `python benchmarks/bench_sample.py`.

The plain loop: guidance as a double batch, captions padded to 120, keys and values in a static cache, and at every step
attention by the plain formula over the cache's whole length under a boolean mask, fp32 logits, then top-k and a
multinomial draw. Both run the same weights (random), in bf16 on a GPU; first both draw greedily and must agree.
Prints a line a round and one JSON line. Works on a CPU too: `--model GPT-B --batch 2 --tokens 64`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.gpt import GPT, Prompt, Span, build_gpt
from pipeline.gpt_spec import SIZES
from pipeline.sampling.decode import Decoder
from pipeline.sampling.generate import Sampling, both, generate

SHORTEST, LONGEST = 6, 30
"""Tokens of a caption; PartiPrompts have some 14 on average."""


class Whole:
    """A static cache that shows all its places at every step; the mask hides what is not there."""

    def __init__(self, gpt: GPT, rows: int, places: int) -> None:
        spec, weight = gpt.spec, gpt.tok_embeddings.weight
        self.k, self.v = (weight.new_zeros(spec.layers, rows, spec.heads, places, spec.head_dim) for _ in range(2))
        self.at = torch.zeros(1, dtype=torch.int64, device=weight.device)

    def put(self, layer: int, k_BHSK: Tensor, v_BHSK: Tensor) -> tuple[Tensor, Tensor]:
        self.k[layer][:, :, self.at], self.v[layer][:, :, self.at] = k_BHSK, v_BHSK
        return self.k[layer], self.v[layer]


@torch.no_grad()
def plain(gpt: GPT, condition: tuple[Tensor, Tensor], n_tokens: int, sampling: Sampling) -> Tensor:
    """Return codes (B, n_tokens), drawn as LlamaGen's loop draws them."""
    prompt: Prompt = both(gpt.embed(condition), gpt.embed(condition, null=True))
    rows, prefix = prompt.x_BTD.shape[:2]
    places = -(-(prefix + n_tokens) // 8) * 8
    device = prompt.x_BTD.device
    cache = Whole(gpt, rows, places)
    mask_BPP = torch.ones(places, places, dtype=torch.bool, device=device).tril().repeat(rows, 1, 1)
    mask_BPP &= torch.arange(places, device=device)[None, None] >= prompt.pad_B[:, None, None]
    mask_BPP |= torch.eye(places, dtype=torch.bool, device=device)
    codes, x_BSD, at = [], prompt.x_BTD, torch.arange(prefix, device=device)
    for _ in range(n_tokens):
        cache.at = at
        span = Span(gpt.rope_cos_PR[at], gpt.rope_sin_PR[at], mask_BPP[:, None, at], cache)
        with sdpa_kernel(SDPBackend.MATH):
            logits_BV = gpt.predict(gpt.through(x_BSD, span))[:, -1].float()
        cond_BV, null_BV = logits_BV.chunk(2)
        codes.append(_draw(null_BV + sampling.cfg_scale * (cond_BV - null_BV), sampling.top_k))
        x_BSD, at = gpt.tok_embeddings(codes[-1].repeat(2))[:, None], at[-1:] + 1
    return torch.stack(codes, 1)


def _draw(logits_BV: Tensor, top_k: int) -> Tensor:
    least_B1 = logits_BV.topk(top_k).values[:, -1:]
    return torch.multinomial(logits_BV.masked_fill(logits_BV < least_B1, -torch.inf).softmax(-1), 1)[:, 0]


def main() -> None:
    """Time both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=tuple(SIZES), default="GPT-XL")
    parser.add_argument("--batch", type=int, default=16, help="pictures at once; guidance doubles the rows")
    parser.add_argument("--grid", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    args = parser.parse_args()
    gpt, condition, card = _setting(args)
    decoder = Decoder(gpt, 2 * args.batch, args.tokens, compiled=args.compile)
    sampling = Sampling(7.5, top_k=1000)

    def ours(how: Sampling) -> Tensor:
        return generate(gpt, condition, args.tokens, how, decoder=decoder)

    greedy = Sampling(7.5, top_k=1)
    same = float((ours(greedy) == plain(gpt, condition, args.tokens, greedy)).float().mean())
    print(f"{args.model}, {args.batch} pictures of {args.tokens} codes, {card}: {same:.2%} of greedy codes agree")
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for number in range(args.rounds):
        times["plain"].append(_seconds(lambda: plain(gpt, condition, args.tokens, sampling)))
        times["ours"].append(_seconds(lambda: ours(sampling)))
        print(f"  round {number + 1}: plain {times['plain'][-1]:.2f} s, ours {times['ours'][-1]:.2f} s", flush=True)
    best = {name: statistics.median(taken) for name, taken in times.items()}
    line = {
        **{"model": args.model, "batch": args.batch, "tokens": args.tokens, "device": card, "compiled": args.compile},
        **{f"{name}_s": round(seconds, 3) for name, seconds in best.items()},
        **{"pictures_per_s": round(args.batch / best["ours"], 3), "ratio": round(best["plain"] / best["ours"], 2)},
        "greedy_agree": round(same, 4),
    }
    print(json.dumps(line))


def _setting(args: argparse.Namespace) -> tuple[GPT, tuple[Tensor, Tensor], str]:
    """Return the model with random weights, captions of random lengths padded to 120, and what it runs on."""
    torch.manual_seed(0)
    gpt = build_gpt(args.model, "text", args.grid)
    torch.nn.init.normal_(gpt.output.weight, std=0.1)
    device, card = torch.device("cpu"), f"CPU, {torch.get_num_threads()} threads, fp32"
    if torch.cuda.is_available():
        device, card = torch.device("cuda"), f"{torch.cuda.get_device_name()}, bf16"
        tables = gpt.rope_cos_PR, gpt.rope_sin_PR
        gpt = gpt.to(torch.bfloat16)
        gpt.rope_cos_PR, gpt.rope_sin_PR = tables
    lengths_B = torch.randint(SHORTEST, LONGEST + 1, (args.batch,))
    features_BTC = torch.randn(args.batch, gpt.spec.cond_len, gpt.spec.cond_dim)
    return gpt.requires_grad_(False).to(device), (features_BTC.to(device), lengths_B.to(device)), card


def _seconds(work: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    work().cpu()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

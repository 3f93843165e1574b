"""How many captions a second: slots that are refilled beside plain `generate` at batch 1 and 16, in turns.

    python benchmarks/bench_caption.py [--size tiny|small|7b] [--captions 512] [--slots 32] [--rounds 2]

LLaVA-1.5's architecture with random weights. Answers have lengths drawn like N(100, 30), which no token ends; all three
give the same answers, token for token, where the arithmetic is float32. Pictures are prepared before: what is measured
is reading, decoding, and what stands between the forward passes. On a CPU one thread works and its own seconds are
counted, so that other jobs change little; on a GPU seconds are the clock's.
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from captioning.captioners.refill import Question, Refill

IMAGE_TOKEN = 4
SIZES = {
    # text: width, layers, heads, feed-forward; vision: width, layers, heads; side and patch in pixels
    "tiny": ((64, 2, 4, 128), (32, 2, 4), (32, 8)),
    "small": ((512, 8, 8, 1376), (256, 4, 4), (112, 14)),
    "7b": ((4096, 32, 32, 11008), (1024, 24, 16), (336, 14)),
}
PICTURES = 16
"""Different questions; they are asked again and again."""


@dataclass
class Done:
    """What one way of decoding took: captions, kept tokens, decoded slots, seconds, of them within forward passes."""

    captions: int
    tokens: int
    offered: int
    seconds: float
    forward: float

    @property
    def figures(self) -> tuple[float, float, float, float]:
        """Return captions/s, tokens/s, the share of useful slots, and of the time outside of forward passes."""
        outside = 1 - self.forward / self.seconds
        return self.captions / self.seconds, self.tokens / self.seconds, self.tokens / self.offered, outside


def make_model(size: str, device: str) -> Any:
    """Return a LLaVA of random numbers of this size."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    (width, layers, heads, inner), (seen, deep, eyes), (side, patch) = SIZES[size]
    vision = CLIPVisionConfig(
        hidden_size=seen,
        intermediate_size=4 * seen,
        num_hidden_layers=deep,
        num_attention_heads=eyes,
        image_size=side,
        patch_size=patch,
        projection_dim=seen,
    )
    text = LlamaConfig(
        vocab_size=32_064 if size == "7b" else 2_000,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=4096,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    with torch.device(device):
        model = LlavaForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0
    return model


def make_questions(model: Any, size: str, count: int) -> list[Question]:
    """Return so many questions: a picture and 40 words, with the lengths of their answers."""
    draw, (side, patch) = np.random.default_rng(1), SIZES[size][2]
    inputs = []
    for _ in range(PICTURES):
        words = draw.integers(10, 1_900, 40)
        row = [1, *words[:10], *[IMAGE_TOKEN] * (side // patch) ** 2, *words[10:]]
        ids = torch.tensor([row], device=model.device)
        pixels = torch.tensor(draw.normal(size=(1, 3, side, side)), dtype=model.dtype, device=model.device)
        inputs.append({"input_ids": ids, "pixel_values": pixels, "attention_mask": torch.ones_like(ids)})
    lengths = np.clip(draw.normal(100, 30, count).round(), 2, 256).astype(int).tolist()
    return [Question(number, inputs[number % PICTURES], length) for number, length in enumerate(lengths)]


@contextmanager
def forward_seconds(model: Any) -> Iterator[list[Any]]:
    """Add up the time within the model's forward passes; on a GPU that of its events."""
    spent: list[Any] = []
    plain, on_gpu = model.forward, model.device.type == "cuda"

    @functools.wraps(plain)  # generate looks at its signature
    def timed(*args: Any, **kwargs: Any) -> Any:
        if on_gpu:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            out = plain(*args, **kwargs)
            end.record()
            spent.append((start, end))
            return out
        start = time.process_time()
        out = plain(*args, **kwargs)
        spent.append(time.process_time() - start)
        return out

    model.forward = timed
    try:
        yield spent
    finally:
        model.forward = plain


def now(model: Any) -> float:
    """Return seconds: the clock's with a GPU, else this thread's own."""
    return time.perf_counter() if model.device.type == "cuda" else time.process_time()


def total(spent: list[Any]) -> float:
    """Return seconds."""
    if spent and isinstance(spent[0], tuple):
        torch.cuda.synchronize()
        return sum(start.elapsed_time(end) for start, end in spent) / 1000
    return sum(spent)


def refilled(model: Any, questions: list[Question], slots: int) -> tuple[Done, dict[int, list[int]]]:
    """Answer by slots that are refilled; the first token of an answer comes with the reading of its question."""
    refill = Refill(model, slots, frozenset(), lambda key, logits, place: int(logits.argmax()))
    with forward_seconds(model) as spent:
        start = now(model)
        found = {question.key: tokens for question, tokens, _ in refill.answers(iter(questions))}
        seconds = now(model) - start
    tokens = sum(map(len, found.values()))
    offered = refill.counts.offered + refill.counts.read
    return Done(len(found), tokens, offered, seconds, total(spent)), found


def generated(model: Any, questions: list[Question], batch: int) -> tuple[Done, dict[int, list[int]]]:
    """Answer by `generate` in batches, each as long as its longest answer."""
    found: dict[int, list[int]] = {}
    offered = 0
    with forward_seconds(model) as spent:
        start = now(model)
        for first in range(0, len(questions), batch):
            some = questions[first : first + batch]
            inputs = {name: torch.cat([one.inputs[name] for one in some]) for name in some[0].inputs}
            longest = max(one.limit for one in some)
            with torch.inference_mode():
                out = model.generate(**inputs, do_sample=False, max_new_tokens=longest, min_new_tokens=longest)
            offered += longest * len(some)
            answers = out[:, inputs["input_ids"].shape[1] :].tolist()
            found |= {one.key: answer[: one.limit] for one, answer in zip(some, answers, strict=True)}
        seconds = now(model) - start
    return Done(len(found), sum(map(len, found.values())), offered, seconds, total(spent)), found


def main() -> None:
    """Take turns, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--captions", type=int, default=512)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)
    model = make_model(options.size, device)
    questions = make_questions(model, options.size, options.captions)
    few = questions[: max(16, options.captions // 16)]  # batch 1 is slow
    ways = {
        f"refilled, {options.slots} slots": lambda: refilled(model, questions, options.slots),
        "generate, batch 1": lambda: generated(model, few, 1),
        "generate, batch 16": lambda: generated(model, questions, 16),
        f"generate, batch {options.slots}": lambda: generated(model, questions, options.slots),
    }
    generated(model, questions[:2], 1)  # the first pass is slower
    seen: dict[str, list[Done]] = {name: [] for name in ways}
    answers: dict[str, dict[int, list[int]]] = {}
    for _ in range(options.rounds):
        for name, way in ways.items():
            done, answers[name] = way()
            seen[name].append(done)
    load = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{options.size} on {device}, {options.captions} captions, {load}")
    print(f"{'':<24}{'captions/s':>12}{'tokens/s':>11}{'useful slots':>14}{'outside forward':>17}")
    first, *_ = answers.values()
    for name, rounds in seen.items():
        columns = zip(*(one.figures for one in rounds), strict=True)
        rate, tokens, useful, outside = (statistics.median(column) for column in columns)
        same = sum(first[key] == tokens_ for key, tokens_ in answers[name].items())
        equal = f"  {same} of {len(answers[name])} equal"
        print(f"{name:<24}{rate:>12.2f}{tokens:>11.0f}{useful:>14.1%}{outside:>17.1%}{equal}")


if __name__ == "__main__":
    main()

"""How fast the network and models are in a rehearsal: rates that were given, that a file of costs holds, or assumed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.recipes.schema import RecipeError

CORE = {"fetch": 25.0, "score": 10.0, "caption": 0.25, "encode": 2.5, "t5": 2.0}
"""Assumed rows/s of one worker on one core, all guards on (benchmarks/RESULTS.md: fetch 54.7 on two cores; a model on a
CPU is slow)."""
GFLOP = {"score": 160.0, "caption": 10_300.0, "encode": 138.5, "t5": 73.0}
"""Work of a row on a GPU: CLIP ViT-L/14 once; LLaVA 1.5 7B reading 636 tokens and writing 100; VQ-16 at 256 px
(measured, benchmarks/RESULTS.md; it grows with the square of the side); flan-T5-XL over 30 tokens."""
GPU_TFLOPS = 50.0
"""Assumed of one GPU in bf16, in useful work: a sixth of an A100's 312."""
DECODE = 130.0
"""Pictures/s that one core decodes (benchmarks/RESULTS.md: 137): what keeps a GPU waiting."""
NAMES = (*CORE, "decode")


@dataclass(frozen=True)
class Rate:
    """Rows/s of one worker or one GPU, and where the number comes from."""

    per_s: float
    each: str
    source: str


def parse_rates(given: list[str]) -> dict[str, float]:
    """Return step -> rows/s of `--rate STEP=ROWS`. Raises RecipeError."""
    found = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError:
            found[name] = 0.0
        if name not in NAMES or not 0 < found[name] < float("inf"):
            raise RecipeError(
                f"--rate {text!r}: wanted STEP=ROWS, rows/s of one worker or GPU; steps: {', '.join(NAMES)}"
            )
    return found


@dataclass(frozen=True)
class Rates:
    """Rates of a run. `given`: by the user; `known`: those of the file of costs, "worker" and "gpu"; `area`: pixels of
    the largest tier over 256 x 256."""

    given: Mapping[str, float]
    known: Mapping[str, Mapping[str, float]]
    gpus: int
    area: float = 1.0

    def of(self, name: str) -> Rate:
        """Return the rate of a step, or of decoding pictures for it."""
        each = "GPU" if self.gpus and name in GFLOP else "worker"
        if name in self.given:
            return Rate(self.given[name], each, "given by --rate")
        if name in (known := self.known.get(each.lower(), {})):
            return Rate(known[name], each, "of the file of costs")
        if each == "GPU":
            work = GFLOP[name] * (self.area if name == "encode" else 1.0)
            source = f"{work:,.0f} GFLOP a row at {GPU_TFLOPS:g} TFLOP/s, not measured (--rate {name}=ROWS)"
            return Rate(GPU_TFLOPS * 1000 / work, each, source)
        return Rate(DECODE if name == "decode" else CORE[name], each, f"not measured (--rate {name}=ROWS)")

    def rows_per_s(self, name: str, workers: int) -> float:
        """Return the rows/s of all workers or GPUs; a GPU that looks at pictures waits for cores that decode them."""
        rate = self.of(name)
        if rate.each == "worker":
            return workers * rate.per_s
        waits = name in ("score", "caption", "encode")
        return min(self.gpus * rate.per_s, workers * self.of("decode").per_s if waits else float("inf"))

    def told(self, names: list[str]) -> Iterator[str]:
        """Yield each rate with its source."""
        decoded = ["decode"] if self.gpus and names else []
        for name in [*names, *decoded]:
            rate = self.of(name)
            yield f"{name}: {rate.per_s:,.4g} rows/s a {rate.each}, {rate.source}"

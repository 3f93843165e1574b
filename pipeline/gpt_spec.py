"""Say what shapes a GPT, and LlamaGen's sizes by name, without importing torch."""

from dataclasses import dataclass, fields, replace
from typing import Literal, TypedDict, get_args

FFN_MULTIPLE = 256

ConditionKind = Literal["text", "class"]
RopeCondition = Literal["zero", "identity"]


class GPTOptions(TypedDict, total=False):
    """The keywords of `build_gpt` beyond its four arguments; GPTSpec holds the defaults and what each means."""

    vocab: int
    cond_len: int
    cond_dim: int
    classes: int
    token_dropout: float
    resid_dropout: float
    ffn_dropout: float
    cond_dropout: float


@dataclass(frozen=True)
class GPTSpec:
    """Everything that shapes one GPT; the defaults are LlamaGen's (arXiv 2406.06525 and its code at ce98ec4)."""

    layers: int
    heads: int
    dim: int
    condition: ConditionKind = "text"
    grid: int = 16  # image tokens per side: 16 at 256 px, 32 at 512 px with VQ-16
    rope_cond: RopeCondition = "zero"  # "zero" is LlamaGen's: keys and queries of the condition become 0
    vocab: int = 16384  # codes in the tokenizer's codebook
    cond_len: int = 120  # text tokens at most; a class takes one position whatever this says
    cond_dim: int = 2048  # width of a text feature (flan-t5-xl)
    classes: int = 1000  # ImageNet; one more row stands for "no class"
    token_dropout: float = 0.1  # on condition and code embeddings
    resid_dropout: float = 0.1  # after attention's output matrix
    ffn_dropout: float = 0.1  # after the feed-forward's last matrix
    cond_dropout: float = 0.1  # share of samples trained without their condition, for classifier-free guidance

    @property
    def head_dim(self) -> int:
        """Return the width of one head."""
        return self.dim // self.heads

    @property
    def ffn_dim(self) -> int:
        """Return the feed-forward width: two thirds of 4 D, rounded up to a multiple of 256 (Llama's SwiGLU sizing)."""
        return -(-int(2 * 4 * self.dim / 3) // FFN_MULTIPLE) * FFN_MULTIPLE

    @property
    def prefix(self) -> int:
        """Return the number of condition positions before the first image token, at most."""
        return self.cond_len if self.condition == "text" else 1


SIZES: dict[str, tuple[int, int, int]] = {
    "GPT-B": (12, 12, 768),
    "GPT-L": (24, 16, 1024),
    "GPT-XL": (36, 20, 1280),
    "GPT-XXL": (48, 24, 1536),
    "GPT-XXXL": (48, 40, 2560),
    "GPT-1B": (22, 32, 2048),
    "GPT-3B": (24, 32, 3200),
    "GPT-7B": (32, 32, 4096),
    "GPT-demo": (4, 6, 192),
}
"""name -> layers, heads, width. All but GPT-demo are LlamaGen's."""


def gpt_spec(name: str, condition: str, grid: int, rope_cond: str, options: GPTOptions) -> GPTSpec:
    """Return the spec of a named size. Raises ValueError that lists the choices for a name, kind or option nobody
    defined."""
    for what, got, choices in (
        ("model", name, tuple(SIZES)),
        ("condition", condition, get_args(ConditionKind)),
        ("rope_cond", rope_cond, get_args(RopeCondition)),
        *(("option", option, tuple(GPTOptions.__annotations__)) for option in options),
    ):
        if got not in choices:
            raise ValueError(f"{what} {got!r} is unknown; choices: {', '.join(choices)}")
    layers, heads, dim = SIZES[name]
    spec = replace(GPTSpec(layers, heads, dim), condition=condition, grid=grid, rope_cond=rope_cond, **options)  # type: ignore[arg-type]
    for field in fields(spec):
        value = getattr(spec, field.name)
        if field.name.endswith("dropout") and not 0 <= value <= 1:
            raise ValueError(f"{field.name} is {value}, wanted 0..1")
        if not field.name.endswith("dropout") and isinstance(value, int) and value < 1:
            raise ValueError(f"{field.name} is {value}, wanted at least 1")
    return spec


def parameters(spec: GPTSpec) -> int:
    """Return the number of trained parameters: those of LlamaGen's tables for its sizes (the text model's fixed
    "no text" sequence is none)."""
    layer = 4 * spec.dim**2 + 3 * spec.dim * spec.ffn_dim + 2 * spec.dim
    text = spec.cond_dim * spec.dim + spec.dim**2
    condition = text if spec.condition == "text" else (spec.classes + 1) * spec.dim
    return spec.layers * layer + 2 * spec.vocab * spec.dim + spec.dim + condition

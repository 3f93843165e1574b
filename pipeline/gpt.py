"""Build LlamaGen's autoregressive image-code transformer, parameter for parameter.

Shapes: B batch, T condition tokens, N image tokens, S tokens in this call, P positions seen, D model width, H heads,
K head width, R = K/2 rotated pairs, V codes in the codebook, C width of one text feature, L layers.
Names and numbers are those of LlamaGen (arXiv 2406.06525), so that its released weights load strictly.
"""

from dataclasses import dataclass
from typing import Protocol, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.gpt_spec import GPTOptions, GPTSpec, gpt_spec

Condition = Tensor | tuple[Tensor, Tensor]
"""Class labels (B,), or text features (B, T, C) left-padded with their true lengths (B,)."""

ROPE_THETA = 10000.0
NORM_EPS = 1e-5
INIT_STD = 0.02


@dataclass(frozen=True)
class Prompt:
    """An embedded condition: (B, T, D), and how many of its positions are padding per sample (None for classes)."""

    x_BTD: Tensor
    pad_B: Tensor | None


class KeyValues(Protocol):
    """Keys and values of earlier calls, for decoding."""

    def put(self, layer: int, k_BHSK: Tensor, v_BHSK: Tensor) -> tuple[Tensor, Tensor]:
        """Keep a layer's keys and values of this call; return those that its queries see, (B, H, P, K)."""
        ...


@dataclass(frozen=True)
class Span:
    """What attention needs to know of the S positions in this call."""

    cos_SR: Tensor  # or (B, 1, S, R), where rows differ
    sin_SR: Tensor
    mask_B1SP: Tensor | None = None  # None: plain causal
    cache: KeyValues | None = None


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x_BSD: Tensor) -> Tensor:
        """Return x over its root mean square along D, times the gain."""
        x32_BSD = x_BSD.float()
        x32_BSD = x32_BSD * torch.rsqrt(x32_BSD.square().mean(-1, keepdim=True) + NORM_EPS)
        return x32_BSD.type_as(x_BSD) * self.weight


class CaptionMLP(nn.Module):
    """Two linear maps without bias and a tanh-GELU between: text feature to model width."""

    def __init__(self, cond_dim: int, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(cond_dim, dim, bias=False)
        self.fc2 = nn.Linear(dim, dim, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Return (B, T, D)."""
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x_BTC), approximate="tanh")))


class CaptionEmbedder(nn.Module):
    """Project text features; "no text" is a fixed random sequence, saved but never trained, as in LlamaGen."""

    uncond_embedding: Tensor

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        self.register_buffer("uncond_embedding", torch.randn(spec.cond_len, spec.cond_dim) / spec.cond_dim**0.5)
        self.cap_proj = CaptionMLP(spec.cond_dim, spec.dim)

    def forward(self, x_BTC: Tensor, drop_B: Tensor) -> Tensor:
        """Return (B, T, D); rows where `drop_B` is true carry no text."""
        x_BTC = x_BTC.to(self.uncond_embedding.dtype)
        null_TC = self.uncond_embedding[-x_BTC.shape[1] :]
        return cast(Tensor, self.cap_proj(torch.where(drop_B[:, None, None], null_TC, x_BTC)))


class LabelEmbedder(nn.Module):
    """A row per class, and a last row for "no class"."""

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(spec.classes + 1, spec.dim)

    def forward(self, labels_B: Tensor, drop_B: Tensor) -> Tensor:
        """Return (B, 1, D)."""
        null = self.embedding_table.num_embeddings - 1
        return cast(Tensor, self.embedding_table(torch.where(drop_B, null, labels_B.long()))[:, None])


def _rotate(x_BHSK: Tensor, span: Span) -> Tensor:
    """Rotate neighbouring pairs by the position's angles, in float32."""
    a_BHSR, b_BHSR = x_BHSK.float().reshape(*x_BHSK.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack((a_BHSR * span.cos_SR - b_BHSR * span.sin_SR, b_BHSR * span.cos_SR + a_BHSR * span.sin_SR), -1)
    return turned.flatten(-2).type_as(x_BHSK)


class Attention(nn.Module):
    """Causal self-attention with one fused input matrix."""

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        self.heads, self.head_dim = spec.heads, spec.head_dim
        self.wqkv = nn.Linear(spec.dim, 3 * spec.dim, bias=False)
        self.wo = nn.Linear(spec.dim, spec.dim, bias=False)
        self.resid_dropout = nn.Dropout(spec.resid_dropout)

    def forward(self, x_BSD: Tensor, span: Span, layer: int) -> Tensor:
        """Return (B, S, D); with a cache, the keys and values of earlier calls are seen too."""
        shape = (*x_BSD.shape[:2], self.heads, self.head_dim)
        q_BHSK, k_BHPK, v_BHPK = (part.reshape(shape).transpose(1, 2) for part in self.wqkv(x_BSD).chunk(3, dim=-1))
        q_BHSK, k_BHPK = _rotate(q_BHSK, span), _rotate(k_BHPK, span)
        if span.cache is not None:
            k_BHPK, v_BHPK = span.cache.put(layer, k_BHPK, v_BHPK)
        causal = span.mask_B1SP is None and x_BSD.shape[1] > 1
        y_BHSK = F.scaled_dot_product_attention(q_BHSK, k_BHPK, v_BHPK, attn_mask=span.mask_B1SP, is_causal=causal)
        return cast(Tensor, self.resid_dropout(self.wo(y_BHSK.transpose(1, 2).flatten(-2))))


class FeedForward(nn.Module):
    """SwiGLU."""

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        self.w1 = nn.Linear(spec.dim, spec.ffn_dim, bias=False)
        self.w3 = nn.Linear(spec.dim, spec.ffn_dim, bias=False)
        self.w2 = nn.Linear(spec.ffn_dim, spec.dim, bias=False)
        self.ffn_dropout = nn.Dropout(spec.ffn_dropout)

    def forward(self, x_BSD: Tensor) -> Tensor:
        """Return (B, S, D)."""
        return cast(Tensor, self.ffn_dropout(self.w2(F.silu(self.w1(x_BSD)) * self.w3(x_BSD))))


class Block(nn.Module):
    """Pre-norm attention and feed-forward, each added to its input."""

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        self.attention = Attention(spec)
        self.feed_forward = FeedForward(spec)
        self.attention_norm = RMSNorm(spec.dim)
        self.ffn_norm = RMSNorm(spec.dim)

    def forward(self, x_BSD: Tensor, span: Span, layer: int) -> Tensor:
        """Return (B, S, D)."""
        x_BSD = x_BSD + self.attention(self.attention_norm(x_BSD), span, layer)
        return cast(Tensor, x_BSD + self.feed_forward(self.ffn_norm(x_BSD)))


class GPT(nn.Module):
    """The condition's tokens, then image codes in raster order; the last condition token predicts the first code."""

    rope_cos_PR: Tensor
    rope_sin_PR: Tensor

    def __init__(self, spec: GPTSpec) -> None:
        super().__init__()
        self.spec = spec
        self.cls_embedding: nn.Module = CaptionEmbedder(spec) if spec.condition == "text" else LabelEmbedder(spec)
        self.tok_embeddings = nn.Embedding(spec.vocab, spec.dim)
        self.tok_dropout = nn.Dropout(spec.token_dropout)
        self.layers = nn.ModuleList(Block(spec) for _ in range(spec.layers))
        self.norm = RMSNorm(spec.dim)
        self.output = nn.Linear(spec.dim, spec.vocab, bias=False)
        cos_PR, sin_PR = rope_tables(spec)
        self.register_buffer("rope_cos_PR", cos_PR, persistent=False)
        self.register_buffer("rope_sin_PR", sin_PR, persistent=False)
        self.apply(_initialise)
        nn.init.zeros_(self.output.weight)

    def forward(
        self,
        codes_BN: Tensor,
        condition: Condition,
        inputs_BN: Tensor | None = None,
        *,
        by_row: bool = False,
        dense: bool = False,
    ) -> Tensor:
        """Return the mean cross-entropy in nats per code, () or with `by_row` (B,): the call that is compiled, wrapped
        and differentiated.

        inputs_BN: codes to read instead of the true ones (input corruption); the targets are always `codes_BN`. dense:
        some caption has no token (see `_read_rolled`). All lie on the model's device; values are not looked at, which
        would wait for it: the loader has checked them, and `logits` and `loss` check.
        """
        logits_BNV = self._logits(codes_BN if inputs_BN is None else inputs_BN, condition, dense=dense)
        return _nats(logits_BNV, codes_BN).mean(-1 if by_row else (0, 1))

    def loss(
        self, codes_BN: Tensor, condition: Condition, valid: Tensor | None = None, *, inputs_BN: Tensor | None = None
    ) -> Tensor:
        """Return the mean cross-entropy in nats per code. Raises ValueError as `logits` does.

        valid: (B,) weights, 0 for samples that do not count. inputs_BN: as in `forward`.
        """
        logits_BNV = self.logits(codes_BN if inputs_BN is None else inputs_BN, condition)
        nats_BN = _nats(logits_BNV, codes_BN.to(logits_BNV.device))
        if valid is None:
            return nats_BN.mean()
        weight_BN = valid.to(nats_BN)[:, None].expand_as(nats_BN)
        return (nats_BN * weight_BN).sum() / weight_BN.sum().clamp(min=1)

    def logits(self, codes_BN: Tensor, condition: Condition) -> Tensor:
        """Return float32 (B, N, V): position i predicts code i, having read the condition and the codes before i.

        Raises ValueError for codes or a condition of the wrong shape or range.
        """
        limit = self.spec.grid**2
        if codes_BN.ndim != 2 or not 1 <= codes_BN.shape[1] <= limit:
            raise ValueError(
                f"codes have shape {tuple(codes_BN.shape)}, wanted (B, N) with N from 1 to {limit} (grid"
                f" {self.spec.grid})"
            )
        device = self.tok_embeddings.weight.device
        codes_BN = codes_BN.to(device)
        _check_range("codes", codes_BN, self.spec.vocab - 1)
        self.check_condition(condition)
        content, lengths_B = condition if isinstance(condition, tuple) else (condition, None)
        if len(content) != len(codes_BN):
            raise ValueError(f"{len(codes_BN)} rows of codes with {len(content)} conditions")
        if lengths_B is None:
            return self._logits(codes_BN, content.to(device))
        dense = bool((lengths_B == 0).any())
        return self._logits(codes_BN, (content.to(device), lengths_B.to(device)), dense=dense)

    def _logits(self, codes_BN: Tensor, condition: Condition, *, dense: bool = False) -> Tensor:
        """Return the logits (B, N, V) of values that were checked."""
        prompt = self.embed(condition)
        x_BSD = torch.cat((prompt.x_BTD, self.tok_embeddings(codes_BN[:, :-1].long())), dim=1)
        if prompt.pad_B is None or dense:
            return self._read_masked(x_BSD, prompt)
        return self._read_rolled(x_BSD, prompt, prompt.pad_B)

    def check_condition(self, condition: Condition) -> None:
        """Raise ValueError for a condition of the wrong shape, or a label or length out of range: got, wanted."""
        content, lengths_B = condition if isinstance(condition, tuple) else (condition, None)
        _check_condition(self.spec, content, lengths_B)
        if lengths_B is not None:
            _check_range("lengths", lengths_B, content.shape[1])
        elif self.spec.condition == "class":
            _check_range("labels", content, self.spec.classes - 1)

    def embed(self, condition: Condition, *, null: bool = False) -> Prompt:
        """Return the embedded condition.

        null: without the condition's content, for guidance. In training mode each sample loses its content with
        probability `cond_dropout`. The padding mask stays that of the caption either way, as in LlamaGen.
        """
        content, lengths_B = condition if isinstance(condition, tuple) else (condition, None)
        _check_condition(self.spec, content, lengths_B)
        device = self.tok_embeddings.weight.device
        drop_B = torch.full((len(content),), null, device=device)
        if self.training and not null:
            drop_B = torch.rand(len(content), device=device) < self.spec.cond_dropout
        pad_B = None if lengths_B is None else content.shape[1] - lengths_B.to(device)
        return Prompt(self.cls_embedding(content.to(device), drop_B), pad_B)

    def _read_rolled(self, x_BSD: Tensor, prompt: Prompt, pad_B: Tensor) -> Tensor:
        """Return the logits (B, N, V) of whole rows whose captions have a token at least.

        Each row is rolled by its padding: its caption stands first, its codes behind, the padding last, so that plain
        causal attention, which needs no mask, shows no token any padding. Rotary angles go by the places before. A
        caption without a token cannot be so: its first code is predicted from a place that only that place sees.
        """
        positions, prefix = x_BSD.shape[1], prompt.x_BTD.shape[1]
        place_BS = (torch.arange(positions, device=x_BSD.device) + pad_B[:, None]) % positions
        h_BSD = x_BSD.gather(1, place_BS[:, :, None].expand_as(x_BSD))
        table_BS = place_BS + (self.spec.prefix - prefix)
        cos_BSR, sin_BSR = (table[table_BS][:, None] for table in (self.rope_cos_PR, self.rope_sin_PR))
        h_BSD = self.through(h_BSD, Span(cos_BSR, sin_BSR))
        last_BN = torch.arange(prefix - 1, positions, device=x_BSD.device) - pad_B[:, None]
        h_BND = h_BSD.gather(1, last_BN[:, :, None].expand(-1, -1, h_BSD.shape[2]))
        return self.predict(h_BND)

    def through(self, x_BSD: Tensor, span: Span) -> Tensor:
        """Run positions through all layers."""
        h_BSD = self.tok_dropout(x_BSD)
        for layer, block in enumerate(self.layers):
            h_BSD = block(h_BSD, span, layer)
        return cast(Tensor, h_BSD)

    def _read_masked(self, x_BSD: Tensor, prompt: Prompt) -> Tensor:
        """Return the logits (B, N, V) of whole rows as they stand, their padding masked."""
        positions, prefix = x_BSD.shape[1], prompt.x_BTD.shape[1]
        skipped = self.spec.prefix - prefix  # a short prompt has no left padding: its tables start later
        cos_SR, sin_SR = (table[skipped : skipped + positions] for table in (self.rope_cos_PR, self.rope_sin_PR))
        mask = None if prompt.pad_B is None else text_mask(prompt.pad_B, positions)
        h_BSD = self.through(x_BSD, Span(cos_SR, sin_SR, mask))
        return self.predict(h_BSD[:, prefix - 1 :])

    def predict(self, h_BSD: Tensor) -> Tensor:
        """Return float32 logits (B, S, V) of what left the last layer."""
        return cast(Tensor, self.output(self.norm(h_BSD))).float()


def _nats(logits_BNV: Tensor, codes_BN: Tensor) -> Tensor:
    """Return the cross-entropy of each code, (B, N)."""
    nats = F.cross_entropy(logits_BNV.flatten(0, 1), codes_BN.long().flatten(), reduction="none")
    return nats.view_as(codes_BN)


def text_mask(pad_B: Tensor, positions: int) -> Tensor:
    """Return (B, 1, S, S) booleans: each position sees the earlier ones that are no padding, and itself."""
    query_S1 = torch.arange(positions, device=pad_B.device)[:, None]
    key_1S = torch.arange(positions, device=pad_B.device)[None, :]
    seen_BSS = (key_1S <= query_S1) & (key_1S >= pad_B[:, None, None])
    return (seen_BSS | (key_1S == query_S1))[:, None]


def rope_tables(spec: GPTSpec) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (P, R) of the 2-D rotary embedding, condition positions first.

    Half of the pairs turn with the row, half with the column. Angles depend on the row and column alone, so a larger
    grid extends a smaller one. The condition gets cos = sin = 0 ("zero", LlamaGen's: its keys and queries vanish, image
    tokens see all text tokens alike) or cos = 1 ("identity": text is attended by content).
    """
    half = spec.head_dim // 2
    freqs = 1.0 / ROPE_THETA ** (torch.arange(0, half, 2)[: half // 2].float() / half)
    angles_GF = torch.outer(torch.arange(spec.grid).float(), freqs)
    shape = (spec.grid, spec.grid, len(freqs))
    angles_NR = torch.cat((angles_GF[:, None].expand(shape), angles_GF[None].expand(shape)), dim=-1).flatten(0, 1)
    still_TR = torch.zeros(spec.prefix, angles_NR.shape[1])
    cos_TR = still_TR if spec.rope_cond == "zero" else torch.ones_like(still_TR)
    return torch.cat((cos_TR, angles_NR.cos())), torch.cat((still_TR, angles_NR.sin()))


def build_gpt(
    name: str, condition: str = "text", grid: int = 16, rope_cond: str = "zero", **options: Unpack[GPTOptions]
) -> GPT:
    """Return a freshly initialised GPT in eval mode; draws from torch's global generator.

    name: see `gpt_spec.SIZES`. condition: "text" | "class". grid: image tokens per side. rope_cond: "zero" |
    "identity". options: see GPTSpec, whose defaults are LlamaGen's. Raises ValueError that lists the choices.
    """
    return GPT(gpt_spec(name, condition, grid, rope_cond, options)).eval()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INIT_STD)


def _check_range(what: str, values: Tensor, most: int) -> None:
    """Raise ValueError for whole numbers outside 0..most."""
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) <= most:
        raise ValueError(f"{what} from {int(values.min())} to {int(values.max())}, wanted 0 to {most}")


def _check_condition(spec: GPTSpec, content: Tensor, lengths_B: Tensor | None) -> None:
    """Raise ValueError where the condition does not fit the model."""
    if spec.condition == "class":
        if lengths_B is not None or content.ndim != 1:
            raise ValueError(
                "a class model wants labels of shape (B,), got"
                f" {tuple(content.shape)}{' and lengths' if lengths_B is not None else ''}"
            )
        return
    wanted = f"(features (B, T<={spec.cond_len}, {spec.cond_dim}), lengths (B,))"
    if lengths_B is None:
        raise ValueError(f"a text model wants {wanted}, got one tensor of shape {tuple(content.shape)}")
    fits = content.ndim == 3 and 1 <= content.shape[1] <= spec.cond_len and content.shape[2] == spec.cond_dim
    if not fits or lengths_B.shape != content.shape[:1]:
        raise ValueError(f"a text model wants {wanted}, got {tuple(content.shape)} and {tuple(lengths_B.shape)}")

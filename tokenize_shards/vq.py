"""Turn pictures into VQ codes and back with LlamaGen's tokenizer, parameter for parameter.

Shapes: B pictures, C channels, H W pixels, h w the code grid, N = h*w codes in raster order, P = B*N positions,
D width of a code vector, K codes in the codebook. Pictures are float in [-1, 1].
Names, widths and order follow vq_model.py of LlamaGen (arXiv 2406.06525), so that its released weights load strictly.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from manifests.weights import STAND_IN, WeightsError, WeightsFile
from tokenize_shards.catalog import STAND_IN_SEED, VQ_SPECS, VQSpec, vq_spec, vq_weights, what_to_get
from tokenize_shards.tensors import fingerprint, fit, read_tensors, seeded_tensors

NORM_EPS = 1e-6
SAME_DIRECTION = 1e-6
"""Rows of a codebook whose components differ by less than this, at length 1, are no two codes in float32."""
LOOKUP_ROWS = 4096
"""Positions compared with the codebook at a time: 4,096 x 16,384 float32 cosines take 256 MiB."""


class Attention(nn.Module):
    """Single-head self-attention over all grid positions, with a residual."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Return x plus attention over its positions, same shape."""
        normed_BChw = self.norm(x_BChw)
        q_B1NC, k_B1NC, v_B1NC = (
            conv(normed_BChw).flatten(2).transpose(1, 2).unsqueeze(1) for conv in (self.q, self.k, self.v)
        )
        mixed_B1NC = F.scaled_dot_product_attention(q_B1NC, k_B1NC, v_B1NC)
        return cast(Tensor, x_BChw + self.proj_out(mixed_B1NC.squeeze(1).transpose(1, 2).reshape(x_BChw.shape)))


class Residual(nn.Module):
    """Two rounds of norm, swish and 3x3 convolution, with a residual."""

    def __init__(self, channels: int, out: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out, eps=NORM_EPS)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        if channels != out:
            self.nin_shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the block's output, `out` channels, same grid."""
        inner_BCHW = self.conv1(F.silu(self.norm1(x_BCHW)))
        inner_BCHW = self.conv2(F.silu(self.norm2(inner_BCHW)))
        carried_BCHW = self.nin_shortcut(x_BCHW) if hasattr(self, "nin_shortcut") else x_BCHW
        return cast(Tensor, carried_BCHW + inner_BCHW)


class Downsample(nn.Module):
    """Halve the grid with a strided convolution, padded on the right and below only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, C, H/2, W/2)."""
        return cast(Tensor, self.conv(F.pad(x_BCHW, (0, 1, 0, 1))))


class Upsample(nn.Module):
    """Double the grid by repeating each position, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, C, 2H, 2W)."""
        return cast(Tensor, self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest")))


class Level(nn.Module):
    """The blocks of one resolution; a change of resolution, where there is one, comes last."""

    def __init__(self, widths: list[int], groups: int, *, attend: bool) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.res = nn.ModuleList(Residual(before, after, groups) for before, after in pairs)
        self.attn = nn.ModuleList(Attention(after, groups) for _, after in pairs if attend)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the level's output."""
        for index, block in enumerate(self.res):
            x_BCHW = block(x_BCHW)
            if len(self.attn):
                x_BCHW = self.attn[index](x_BCHW)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x_BCHW = getattr(self, name)(x_BCHW)
        return x_BCHW


def _middle(channels: int, groups: int) -> nn.ModuleList:
    return nn.ModuleList(
        [Residual(channels, channels, groups), Attention(channels, groups), Residual(channels, channels, groups)]
    )


class ConvEncoder(nn.Module):
    """Pictures to features on the code grid."""

    def __init__(self, spec: VQSpec) -> None:
        super().__init__()
        widths = [spec.channels * mult for mult in spec.channel_mult]
        self.conv_in = nn.Conv2d(3, spec.channels, 3, padding=1)
        self.conv_blocks = nn.ModuleList()
        for index, (before, after) in enumerate(zip([spec.channels, *widths], widths, strict=False)):
            last = index == len(widths) - 1
            level = Level([before] + [after] * spec.encoder_blocks, spec.norm_groups, attend=last)
            if not last:
                level.downsample = Downsample(after)
            self.conv_blocks.append(level)
        self.mid = _middle(widths[-1], spec.norm_groups)
        self.norm_out = nn.GroupNorm(spec.norm_groups, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], spec.latent_channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, latent_channels, h, w)."""
        x_BCHW = self.conv_in(x_BCHW)
        for block in (*self.conv_blocks, *self.mid):
            x_BCHW = block(x_BCHW)
        return cast(Tensor, self.conv_out(F.silu(self.norm_out(x_BCHW))))


class ConvDecoder(nn.Module):
    """Features on the code grid to pictures; its levels are stored coarsest first."""

    def __init__(self, spec: VQSpec) -> None:
        super().__init__()
        widths = [spec.channels * mult for mult in reversed(spec.channel_mult)]
        self.conv_in = nn.Conv2d(spec.latent_channels, widths[0], 3, padding=1)
        self.mid = _middle(widths[0], spec.norm_groups)
        self.conv_blocks = nn.ModuleList()
        for index, (before, after) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            level = Level([before] + [after] * spec.decoder_blocks, spec.norm_groups, attend=index == 0)
            if index < len(widths) - 1:
                level.upsample = Upsample(after)
            self.conv_blocks.append(level)
        self.norm_out = nn.GroupNorm(spec.norm_groups, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z_BChw: Tensor) -> Tensor:
        """Return (B, 3, H, W)."""
        x_BCHW = self.conv_in(z_BChw)
        for block in (*self.mid, *self.conv_blocks):
            x_BCHW = block(x_BCHW)
        return cast(Tensor, self.conv_out(F.silu(self.norm_out(x_BCHW))))


class Codebook(nn.Module):
    """K unit vectors; a position's code is the one with the largest cosine."""

    codebook_used: Tensor

    def __init__(self, spec: VQSpec) -> None:
        super().__init__()
        self.embedding = nn.Embedding(spec.codebook_size, spec.code_dim)
        self.register_buffer("codebook_used", torch.zeros(spec.used_slots))

    def units(self) -> Tensor:
        """Return the codebook (K, D) with rows of length 1."""
        return F.normalize(self.embedding.weight, dim=-1)

    def nearest(self, z_PD: Tensor) -> Tensor:
        """Return the codes (P,) of vectors of any length; of equals the lowest code wins.

        The least distance |e|² - 2ze is the largest cosine where all e have length 1, so no table of distances is made.
        A row of zeros stays short of 1, and is nearer to every z than rows at more than 60 degrees: what it lacks is
        added.
        """
        units_KD = self.units()
        lacks_K = F.threshold((1 - units_KD.square().sum(-1)) / 2, 0.1, 0.0)  # exactly 0 but for such rows
        pieces = torch.split(z_PD, LOOKUP_ROWS)
        return torch.cat([F.linear(F.normalize(rows_PD, dim=-1), units_KD, lacks_K).argmax(-1) for rows_PD in pieces])

    def vectors(self, codes: Tensor) -> Tensor:
        """Return codes (...) as unit vectors (..., D)."""
        return F.embedding(codes, self.units())


class VQ(nn.Module):
    """LlamaGen's tokenizer: encoder, codebook, decoder."""

    def __init__(self, spec: VQSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = ConvEncoder(spec)
        self.decoder = ConvDecoder(spec)
        self.quantize = Codebook(spec)
        self.quant_conv = nn.Conv2d(spec.latent_channels, spec.code_dim, 1)
        self.post_quant_conv = nn.Conv2d(spec.code_dim, spec.latent_channels, 1)

    def latents(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, D, h, w): what is compared with the codebook, before it is brought to length 1.

        Raises ValueError where H or W is not a multiple of the downsampling factor.
        """
        step = self.spec.downsampling
        if x_BCHW.ndim != 4 or x_BCHW.shape[1] != 3 or x_BCHW.shape[2] % step or x_BCHW.shape[3] % step:
            raise ValueError(
                f"{self.spec.name} wants pictures (B, 3, H, W), H and W multiples of {step}; got {tuple(x_BCHW.shape)}"
            )
        return cast(Tensor, self.quant_conv(self.encoder(x_BCHW)))

    @torch.no_grad()
    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Return the codes (B, N) of pictures, int64, raster order."""
        z_BDhw = self.latents(x_BCHW)
        z_PD = z_BDhw.permute(0, 2, 3, 1).reshape(-1, self.spec.code_dim)
        return self.quantize.nearest(z_PD).view(len(x_BCHW), -1)

    def pictures(self, z_BDhw: Tensor) -> Tensor:
        """Return (B, 3, H, W), not clamped, from unit vectors on the code grid."""
        return cast(Tensor, self.decoder(self.post_quant_conv(z_BDhw)))

    @torch.no_grad()
    def decode(self, codes_BN: Tensor) -> Tensor:
        """Return the pictures (B, 3, H, W), about [-1, 1] and not clamped, of codes on a square grid.

        Raises ValueError where N is not a square or a code is outside the codebook.
        """
        codes_BN = codes_BN.long()  # shards hold uint16, which torch can hardly compute with
        side = math.isqrt(codes_BN.shape[-1]) if codes_BN.ndim == 2 else 0
        if not side or side * side != codes_BN.shape[-1]:
            raise ValueError(f"{self.spec.name} decodes codes (B, N) on a square grid; got {tuple(codes_BN.shape)}")
        if codes_BN.numel() and not 0 <= int(codes_BN.min()) <= int(codes_BN.max()) < self.spec.codebook_size:
            raise ValueError(
                f"{self.spec.name} has codes 0..{self.spec.codebook_size - 1}; got"
                f" {int(codes_BN.min())}..{int(codes_BN.max())}"
            )
        z_BDhw = self.quantize.vectors(codes_BN.long()).transpose(1, 2).reshape(len(codes_BN), -1, side, side)
        return self.pictures(z_BDhw)


def build_vq(name: str) -> VQ:
    """Build "VQ-16", "VQ-8" or "VQ-demo" in eval mode with untrained weights. Raises ValueError for another name."""
    return VQ(vq_spec(name)).eval()


@dataclass(frozen=True)
class LoadedVQ:
    """A tokenizer with weights, and who it is: `fingerprint` tells the tensors, `weights` the file that held them."""

    vq: VQ
    weights: WeightsFile
    fingerprint: str

    @property
    def report(self) -> dict[str, int | float | None]:
        """Return what the checkpoint holds: tensors, parameters, the codebook's rows and width, and the share of it
        that was in use.

        The share is that of different codes among the last 65,536 of training (`codebook_used`), null where nothing was
        recorded.
        """
        book_KD, last = self.vq.quantize.embedding.weight, self.vq.quantize.codebook_used
        used = len(torch.unique(last)) / len(book_KD) if bool(last.any()) else None
        tensors, parameters = len(self.vq.state_dict()), sum(p.numel() for p in self.vq.parameters())
        return {
            "tensors": tensors,
            "parameters": parameters,
            "codebook": len(book_KD),
            "code_dim": book_KD.shape[1],
            "codebook_used": used,
        }


def load_vq(name: str, weights: str) -> LoadedVQ:
    """Load a tokenizer in float32, eval mode, from a checkpoint's path, or 'stand-in', or 'demo' for VQ-demo.

    Reads LlamaGen's .pt in every layout that it writes (EMA weights are preferred, as its evaluation does) and
    safetensors. Raises ValueError for an unknown tokenizer; WeightsError for a missing, damaged or unsafe file, or
    another tokenizer's.
    """
    identity = vq_weights(name, weights)
    vq = _hollow(vq_spec(name))
    tensors = seeded_tensors(_shapes(vq.state_dict()), STAND_IN_SEED) if weights == STAND_IN else _own(vq, identity)
    vq.load_state_dict(tensors, strict=True, assign=True)
    vq.requires_grad_(False)
    return LoadedVQ(vq.eval(), identity, fingerprint(tensors))


def check_vq(name: str, weights: str) -> None:
    """Raise what `load_vq` would raise for these weights and keep nothing of them; an unchanged file is read once per
    process."""
    identity = vq_weights(name, weights)
    if not identity.stand_in:
        _checked(name, identity)


@lru_cache(maxsize=16)
def _checked(name: str, identity: WeightsFile) -> None:
    _own(_hollow(vq_spec(name)), identity)


def _hollow(spec: VQSpec) -> VQ:
    """Return a tokenizer that has names and shapes, and no numbers yet."""
    with torch.device("meta"):
        return VQ(spec)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _own(vq: VQ, identity: WeightsFile) -> dict[str, Tensor]:
    """Return the tensors of a file that is this tokenizer's. Raises WeightsError for any other, saying what it holds
    and what to get."""
    tensors: dict[str, Tensor] = {}
    try:
        tensors = read_tensors(identity.path)
        fitted = fit(tensors, _shapes(vq.state_dict()), identity.label)
        _check_codebook(fitted["quantize.embedding.weight"], identity.label)
    except WeightsError as error:
        raise WeightsError(f"{_whose(tensors, vq.spec, identity) or error}. {what_to_get(vq.spec)}") from error
    return fitted


def _whose(tensors: Mapping[str, Tensor], wanted: VQSpec, identity: WeightsFile) -> str:
    """Return what to say of a file that holds another tokenizer of the catalogue, else nothing."""
    shapes = _shapes(tensors)
    theirs = [
        spec.name for spec in VQ_SPECS.values() if spec != wanted and _shapes(_hollow(spec).state_dict()) == shapes
    ]
    return (
        f"weights of {wanted.name}: {identity.path} holds {theirs[0]}; write vq = {theirs[0]!r} to use it"
        if theirs
        else ""
    )


def _check_codebook(book_KD: Tensor, who: str) -> None:
    """Raise WeightsError where the rows do not tell one code from another: none has a direction, or all have the
    same."""
    units_KD = F.normalize(book_KD[book_KD.norm(dim=-1) > 0], dim=-1)
    if not len(units_KD) or float((units_KD - units_KD[0]).abs().max()) < SAME_DIRECTION:
        raise WeightsError(
            f"weights of {who}: no two of the {len(book_KD):,} rows of the codebook differ in direction: all codes"
            " would be one"
        )

"""Name the tokenizers: layout, downsampling, codebook, and the identity of their weights, all without torch."""

from dataclasses import dataclass, replace
from pathlib import Path

from manifests.weights import STAND_IN, WeightsError, WeightsFile, stand_in, weights_file

DEMO = "demo"
"""The recipe value that asks for the weights inside this package (VQ-demo alone has some)."""
STAND_IN_SEED = 0
IDENTITY_OF = {"VQ-demo": "weights = 'demo' (inside this package), or your own from: python -m pipeline.demo.tokenizer"}
"""Tokenizer -> its `get` as it stood when the identity of stand-in weights was first made of it: keys and digests of
runs hold that identity, so that it outlives the words."""
DEMO_WEIGHTS = Path(__file__).parent / "demo_weights" / "vq_demo.safetensors"


@dataclass(frozen=True)
class VQSpec:
    """One tokenizer layout in LlamaGen's terms (vq_model.py, arXiv 2406.06525 section 3.1)."""

    name: str
    get: str  # where its released weights are
    channel_mult: tuple[int, ...]  # width of each resolution, in units of `channels`, finest first
    channels: int = 128
    encoder_blocks: int = 2  # residual blocks per resolution
    decoder_blocks: int = 3
    latent_channels: int = 256  # LlamaGen's z_channels
    code_dim: int = 8
    codebook_size: int = 16_384
    norm_groups: int = 32
    used_slots: int = (
        65_536  # LlamaGen's `codebook_used` buffer: the last codes seen in training, part of every checkpoint
    )

    @property
    def downsampling(self) -> int:
        """Return the side in pixels of the square that one code stands for."""
        return 1 << (len(self.channel_mult) - 1)


VQ_SPECS: dict[str, VQSpec] = {
    spec.name: spec
    for spec in (
        VQSpec("VQ-16", "vq_ds16_t2i.pt (288 MB) from https://huggingface.co/peizesun/llamagen_t2i", (1, 1, 2, 2, 4)),
        VQSpec("VQ-8", "vq_ds8_c2i.pt (281 MB) from https://huggingface.co/FoundationVision/LlamaGen", (1, 2, 2, 4)),
        VQSpec(
            "VQ-demo",
            f"weights = {DEMO!r} (inside this package), or your own from: python -m pipeline.demo.train_tokenizer",
            (1, 2, 2, 4),
            channels=16,
            encoder_blocks=1,
            decoder_blocks=1,
            latent_channels=32,
            codebook_size=512,
            norm_groups=8,
            used_slots=512,
        ),
    )
}


def vq_spec(name: str) -> VQSpec:
    """Return the layout called `name`. Raises WeightsError, listing the choices, for a name that there is not."""
    if name not in VQ_SPECS:
        raise WeightsError(f"tokenizer {name!r} is not known; the choices are: {', '.join(VQ_SPECS)}")
    return VQ_SPECS[name]


def vq_weights(name: str, weights: str) -> WeightsFile:
    """Return the identity of a tokenizer's weights without loading them: a path, 'stand-in', or 'demo' for VQ-demo.

    An unchanged file is hashed once per process. Raises WeightsError for an unknown tokenizer or a missing file, saying
    what to get.
    """
    spec = vq_spec(name)
    if weights == STAND_IN:
        return stand_in(name, f"{replace(spec, get=IDENTITY_OF.get(name, spec.get))} seed={STAND_IN_SEED}")
    if weights == DEMO and name != "VQ-demo":
        raise WeightsError(f"weights of {name}: only VQ-demo has 'demo' weights. {what_to_get(spec)}")
    return weights_file(name, DEMO_WEIGHTS if weights == DEMO else Path(weights), where=what_to_get(spec))


def what_to_get(spec: VQSpec) -> str:
    """Return the sentence that ends every refusal of a tokenizer's weights: where its own are, and what else may stand
    in the recipe."""
    return (
        f"Get {spec.get}; put the file's path into the recipe as pretokenize.weights, or write 'stand-in' there for"
        " seeded random weights"
    )

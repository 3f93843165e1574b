"""Embed pictures and texts with CLIP through open_clip, from local weights only."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from filters.images.scaled import middle_of_short_side
from filters.scorers.base import Array, Compute, Encoded, Texts, device_of, load_exactly, read_state, run_padded
from filters.scorers.options import STAND_IN_CLIP, ClipOptions, ScorerError
from filters.scorers.stand_in import seeded
from manifests.weights import STAND_IN

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

STAND_IN_GAIN = 2.0
"""Deviation of the stand-in's matrices: pictures come out about 0.2 apart in cosine."""


@dataclass
class Clip:
    """The encoder `clip`. `wants` says which arrays are made: image, text, caption."""

    name = "clip"

    options: ClipOptions
    compute: Compute
    wants: frozenset[str]

    def __post_init__(self) -> None:
        import torch

        self.device = device_of()
        self.model, self.transform, self.tokenizer = load_clip(self.options)
        self.model.to(self.device)
        if self.device.type == "cuda":
            self.model.to(memory_format=torch.channels_last)
        self.cut = _middle_cut(self.transform.transforms)
        self.width = int(self.model.visual.output_dim)
        """Numbers in an embedding."""

    @property
    def preprocessing(self) -> str:
        """What becomes of a picture before the model sees it: open_clip's own description of its transforms."""
        named = [
            part for part in self.transform.transforms if not hasattr(part, "__code__")
        ]  # plain functions have no description
        return "; ".join(str(part).replace("\n", " ") for part in named)

    def encode(self, images: "Sequence[Image]", texts: Texts) -> Encoded:
        """Return `image`, `text` and `caption` as wanted: (N, width) float32 of length 1; a text's is NaN where there
        is none."""
        encoded: dict[str, Array] = {}
        if "image" in self.wants:
            encoded["image"] = self._embed(self.model.encode_image, [self._pixels(image) for image in images])
        for kind in sorted(self.wants & texts.keys()):
            encoded[kind] = self._embed_texts(texts[kind])
        return encoded

    def _pixels(self, image: "Image") -> "torch.Tensor":
        """Return what the model sees, (3, H, W); what would grow monstrous when its short side is scaled is cut
        before."""
        pixels: torch.Tensor = self.transform(middle_of_short_side(image, *self.cut) if self.cut else image)
        return pixels

    def _embed_texts(self, texts: Sequence[str | None]) -> Array:
        there = [row for row, text in enumerate(texts) if text is not None]
        found = np.full((len(texts), self.width), np.nan, np.float32)
        if there:
            found[there] = self._embed(
                self.model.encode_text, list(self.tokenizer([texts[row] or "" for row in there]))
            )
        return found

    def _embed(self, tower: Any, rows: "list[torch.Tensor]") -> Array:
        """Run one tower over padded batches. (N, width), normalised in float32."""
        from torch.nn.functional import normalize

        return run_padded(tower, rows, self.compute, lambda vectors: normalize(vectors, dim=-1))


@dataclass(frozen=True)
class ClipSimilarity:
    """The head `clip_similarity`: cosines of the picture with its alt text and with its generated caption."""

    name = "clip_similarity"

    def score(self, encoded: Encoded) -> dict[str, Array]:
        """Return `clip_similarity` and `clip_similarity_caption`, -1..1; NaN where there is no such text."""
        image = encoded["image"].astype(np.float64)
        kinds = {"clip_similarity": "text", "clip_similarity_caption": "caption"}
        return {column: (image * encoded[kind]).sum(axis=1).astype(np.float32) for column, kind in kinds.items()}


def _middle_cut(parts: Sequence[Any]) -> tuple[int, int, Any] | None:
    """Return (pixels that the short side is scaled to, pixels of the square cut from its middle, filter) where the
    transforms do so."""
    from PIL.Image import Resampling

    named = {type(part).__name__: part for part in parts}
    if not named.keys() >= {"Resize", "CenterCrop"} or not isinstance(named["Resize"].size, int):
        return None
    resize = named["Resize"]
    return resize.size, named["CenterCrop"].size[0], Resampling[resize.interpolation.name]


def load_clip(options: ClipOptions) -> tuple[Any, Any, Any]:
    """Return (model in eval mode, picture -> tensor, texts -> tokens).

    Raises ScorerError for a model that cannot be had offline or whose activation is not the weights',
    WeightsError for weights that are missing or of another form.
    """
    import open_clip

    if options.weights == STAND_IN:
        return _load_stand_in()
    if options.model not in open_clip.list_models():
        raise ScorerError(
            f"score.clip.model: open_clip knows no model {options.model!r}; known: {', '.join(open_clip.list_models())}"
        )
    config = open_clip.get_model_config(options.model)
    if config.keys() & {"custom_text", "multimodal_cfg"} or config["text_cfg"].keys() & {
        "hf_model_name",
        "hf_tokenizer_name",
    }:
        raise ScorerError(
            f"score.clip.model: {options.model!r} has another text tower than CLIP's; take one such as"
            " ViT-L-14-quickgelu"
        )
    trained = open_clip.get_pretrained_cfg(options.model, options.pretrained)
    if not trained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(options.model)) or "none"
        raise ScorerError(
            f"score.clip.pretrained: model {options.model!r} has no weights {options.pretrained!r}; known: {tags}"
        )
    return _load(options.model, config, options.weights, trained)


def _load(model_name: str, config: dict[str, Any], path: str, trained: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Build the model, check its activation, and load the file; `trained` is open_clip's description of the weights."""
    from open_clip import SimpleTokenizer
    from open_clip.transform import PreprocessCfg, image_transform_v2

    model = _build(config)
    _check_activation(model, model_name, bool(trained.get("quick_gelu")))
    state = read_state(path, "clip")
    state = state["state_dict"] if isinstance(state.get("state_dict"), dict) else state
    load_exactly(model, {key.removeprefix("module."): value for key, value in state.items()}, f"clip ({model_name})")
    look = {key: trained[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in trained}
    transform = image_transform_v2(PreprocessCfg(size=model.visual.image_size, **look), is_train=False)
    return model.eval(), transform, SimpleTokenizer(context_length=model.context_length)


def _build(config: dict[str, Any]) -> Any:
    """Return the architecture of one of open_clip's configurations; nothing is fetched, the numbers in it mean nothing
    yet."""
    from open_clip import CLIP

    vision = dict(config["vision_cfg"])
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    return CLIP(**{**config, "vision_cfg": vision})


def _check_activation(model: Any, model_name: str, quick: bool) -> None:
    """Raise ScorerError where the model computes another GELU than its weights were trained with: aesthetic scores
    would shift by 0.6."""
    import torch
    from open_clip.transformer import QuickGELU

    computed = {type(layer) for layer in model.modules() if isinstance(layer, torch.nn.GELU | QuickGELU)}
    wanted = QuickGELU if quick else torch.nn.GELU
    if computed != {wanted}:
        got = " and ".join(sorted(kind.__name__ for kind in computed)) or "neither"
        other = f"{model_name}-quickgelu" if quick else model_name.removesuffix("-quickgelu")
        raise ScorerError(
            f"score.clip: these weights want {wanted.__name__}, but model {model_name!r} computes {got}; take {other!r}"
        )


def _load_stand_in() -> tuple[Any, Any, Any]:
    """Write a small CLIP with seeded weights as a file, and load it as any other."""
    from safetensors.torch import save_file

    name, config = STAND_IN_CLIP["name"], STAND_IN_CLIP["config"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "open_clip_model.safetensors"
        save_file(seeded(_build(config).state_dict(), name, STAND_IN_GAIN), path)
        return _load(name, config, str(path), {"quick_gelu": True})

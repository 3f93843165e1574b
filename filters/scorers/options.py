"""Read the options of encoders and heads: the tables [score.NAME] of a recipe."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.weights import STAND_IN

STAND_IN_CLIP: dict[str, Any] = {
    "name": "tessera-stand-in",
    "config": {
        "embed_dim": 768,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "patch_size": 16, "layers": 2, "width": 128, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "layers": 1, "width": 64, "heads": 2},
    },
}
"""A small CLIP in open_clip's own words; its embeddings have ViT-L/14's 768 numbers, so that the aesthetic heads
fit."""


class ScorerError(ValueError):
    """The recipe asks for a scorer or an option that does not exist or does not fit; the message lists the choices."""


class Options(BaseModel):
    """A table [score.NAME]: unknown keys raise."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def identity(self) -> dict[str, Any]:
        """Return the options that change the scores; where a file lies does not, its digest counts instead."""
        return self.model_dump(exclude={"weights"})


class ClipOptions(Options):
    """[score.clip]."""

    model: str = Field("ViT-L-14-quickgelu", description="open_clip's name of the architecture")
    pretrained: str = Field(
        "openai",
        description="open_clip's tag of the weights: their activation and preprocessing; nothing is downloaded",
    )
    weights: str = Field("open_clip_model.safetensors", description="state dict, a local file; or 'stand-in'")

    def identity(self) -> dict[str, Any]:
        """Return architecture and tag; a stand-in has its own."""
        return {} if self.weights == STAND_IN else super().identity()


class AestheticV1Options(Options):
    """[score.aesthetic_v1]."""

    weights: str = Field(
        "sa_0_4_vit_l_14_linear.pth", description="LAION's linear head for ViT-L/14, a local file; or 'stand-in'"
    )


class AestheticV2Options(Options):
    """[score.aesthetic_v2]."""

    weights: str = Field(
        "sac+logos+ava1-l14-linearMSE.pth", description="the improved predictor's head, a local file; or 'stand-in'"
    )


class ClipNsfwOptions(Options):
    """[score.clip_nsfw]."""

    weights: str = Field(
        "clip_autokeras_binary_nsfw.pth", description="LAION's NSFW head for ViT-L/14, a local file; or 'stand-in'"
    )


class WatermarkOptions(Options):
    """[score.watermark_laion]."""

    weights: str = Field("watermark_model_v1.pt", description="LAION's watermark detector, a local file; or 'stand-in'")


class StockMarkOptions(Options):
    """[score.stock_mark]."""

    side: int = Field(512, ge=64, le=4096, description="pixels of the long side at which text is looked for")


def read_options(model: type[Options], name: str, given: Mapping[str, Any]) -> Options:
    """Check one table. Raises ScorerError with what was got and the known keys."""
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        known = ", ".join(f"{field}: {info.description}" for field, info in model.model_fields.items()) or "none"
        what = (
            f"unknown key {key!r}"
            if fault["type"] == "extra_forbidden"
            else f"{key}: {fault['msg']} (got {fault['input']!r})"
        )
        raise ScorerError(f"score.{name}: {what}; known keys: {known}") from error

"""What a captioner is: what it is asked, what it answers, its protocol, its error, the settings that all share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from PIL import Image


class CaptionerError(ValueError):
    """The recipe asks for a captioner or an option that does not exist; the message lists the choices."""


class CaptionerConfig(BaseModel):
    """What every captioner's options have: [caption.NAME]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: int | None = Field(None, ge=1, description="pictures per generation batch; none: [caption] batch_size")


@dataclass(frozen=True)
class Caption:
    """What a captioner says of one picture: the text, its first sentence, and the flags of captioning/quality.py."""

    text: str
    short: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask:
    """One question to a captioner.

    `uid`: 16 bytes, comes back in the answer. `image`: an encoded picture (JPEG). `prompt`: the filled prompt, plain
    text that may hold strangers' words. `seed`: 0 asks for the most likely words (greedy), any other for a sample drawn
    by hash(uid, seed).
    """

    uid: bytes
    image: bytes
    prompt: str
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """What became of one question.

    `text`: the words, stripped. `tokens`: how many were generated, `prompt_tokens`: how many the question took, where
    it is known. `at_limit`: generation stopped at its token limit and not by itself. `reason`: why there is no text
    (a reason of manifests/reasons.py), none where there is one, be it empty.
    """

    uid: bytes
    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    at_limit: bool = False
    reason: str | None = None


class Captioner(Protocol):
    """A model that describes pictures; loaded once in a worker process."""

    name: str
    version: int
    """Part of the step's key: bumped when the same weights would say something else."""
    model: str
    """The model as every output prints it: stand-ins say 'stand-in weights'."""
    revision: str
    """sha256 of the weights, in hex."""
    prompt: str
    """Name of the prompt, see captioning/prompts.py."""

    def caption(self, images: "list[Image.Image]") -> list[Caption]:
        """Return one caption per RGB picture, in order. Any number of pictures; they are cut into padded batches."""
        ...

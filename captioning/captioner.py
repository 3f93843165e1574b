"""What a captioner is: what it is asked, what it answers, its protocol, its error, the settings that all share."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class CaptionerError(ValueError):
    """The recipe asks for a captioner or an option that does not exist; the message lists the choices."""


class CaptionerConfig(BaseModel):
    """What every captioner's options have: [caption.NAME]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    use: str | None = Field(
        None, description="kind of captioner; none: the table's name where it is one, else transformers"
    )
    prompt: str = Field("describe_v1", description="name of the prompt")
    batch_size: int | None = Field(
        None, ge=1, description="pictures that are described together; none: [caption] batch_size"
    )


Config = TypeVar("Config", bound=CaptionerConfig)


def read_options(kind: type[Config], options: Mapping[str, Any]) -> Config:
    """Read the options of a captioner as its kind's table. Raises CaptionerError for an unknown key or a wrong value,
    with the known keys."""
    try:
        return kind.model_validate(dict(options))
    except ValidationError as error:
        raise CaptionerError("; ".join(_explain(kind, fault) for fault in error.errors())) from error


def _explain(kind: type[CaptionerConfig], fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}; known keys: {', '.join(sorted(kind.model_fields))}"
    if fault["type"] == "missing":
        return f"{key}: wanted {kind.model_fields[key].description}"
    said = fault["msg"].removeprefix("Value error, ")
    got = repr(fault["input"])
    if "://" in got:  # a password or a key in it is not repeated
        got = re.sub(r"//[^/@\s]*@", "//…@", got.partition("?")[0])
    return f"{key}: {said} (got {got})" if key else str(said)


@dataclass(frozen=True)
class Caption:
    """What a captioner says of one picture: the text, its first sentence, and its flags (captioning/gate)."""

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


class Ahead(Protocol):
    """Whoever prepares pictures ahead of a model: pipeline/execution/decode_pool.py, or the model's own process."""

    count: int
    """Processes; 0: what is begun is done when it is waited for."""

    def begin(self, items: list[Any], work: Callable[[Any], Any]) -> Callable[[], list[Any]]:
        """Start the work on each item, and return what waits for all of it."""
        ...


class Captioner(Protocol):
    """A model that describes pictures; loaded once in a worker process."""

    name: str
    """Of the captioner's table in the recipe: [caption.NAME]."""
    version: int
    """Part of the step's key: bumped when the same weights would say something else."""
    model: str
    """The model as every output prints it: stand-ins say 'stand-in weights'."""
    revision: str
    """sha256 of the weights, in hex; of a model behind an endpoint what it calls itself."""

    def answers(self, asks: Iterable[Ask]) -> Iterator[Answer]:
        """Yield an answer for every question, as they are done, in any order.

        Questions are drawn from `asks` as there is room for them, so that no end of a shard leaves the model waiting;
        what was drawn and not answered yet is in hand. A picture or a question that cannot be used is answered with a
        reason. Raises CaptionerError where no question can ever be answered: the same for all, so that nobody starts
        the worker again.
        """
        ...

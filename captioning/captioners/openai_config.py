"""A model behind an endpoint: the options of [caption.NAME], what of them changes captions, and the body of a
question."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from captioning.captioner import Ask, CaptionerConfig, read_options
from manifests.extras import require
from manifests.weights import WeightsFile

VERSION = 1
"""Part of the step key: bumped when the same question is put in another way."""
PICTURES = ((b"\xff\xd8", "image/jpeg"), (b"\x89PNG", "image/png"), (b"RIFF", "image/webp"))
"""First bytes of a picture and its media type."""
OURS = ("model", "messages", "stream", "n")
"""Fields of a question that no option may change."""


class OpenAIConfig(CaptionerConfig):
    """[caption.NAME] with use = "openai": any server that answers POST BASE_URL/chat/completions as OpenAI's does."""

    batch_size: int | None = Field(None, description="refused: `concurrency` says how many are asked at a time")
    base_url: str = Field(
        description='where the server is, up to /chat/completions: "http://127.0.0.1:8000/v1"; part of no key'
    )
    model: str = Field(min_length=1, description="the model's name at the server")
    revision: str = Field("", description="of the model, in your words: a changed one asks for all captions again")
    answers_as: str | None = Field(
        None, description="what the server calls the model in its answers; none: the same, or with `-…` behind it"
    )
    api_key_env: str | None = Field(
        None, description="name of the environment variable that holds the key; the key itself is written nowhere"
    )
    concurrency: int = Field(16, ge=1, le=1024, description="questions under way at a time, in each worker")
    max_tokens: int = Field(512, ge=1, description="token limit of a caption")
    temperature: float = Field(0.0, ge=0, le=2, description="of first attempts; 0: the likeliest words")
    seed_temperature: float = Field(0.7, gt=0, le=2, description="of words that are drawn by a seed")
    omit: list[str] = Field(default=[], description="fields of a question that the server does not take")
    body: dict[str, Any] = Field(default={}, description="further fields of a question")
    deadline_s: float = Field(300.0, gt=0, description="seconds for a question, all tries together")
    try_s: float = Field(120.0, gt=0, description="seconds for one try")
    tries: int = Field(6, ge=1, le=100, description="times that a question is put, where the fault may pass")
    backoff_s: float = Field(1.0, gt=0, description="about the seconds before the second try; doubled each time")
    price_prompt: float | None = Field(None, ge=0, description="price of a million tokens of questions")
    price_answer: float | None = Field(None, ge=0, description="price of a million tokens of answers")

    @field_validator("base_url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError('wanted http:// or https:// and a host, such as "http://127.0.0.1:8000/v1"')
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("wanted neither user, password, ? nor # in it: a key goes into a variable, api_key_env")
        return url.rstrip("/")

    @field_validator("api_key_env")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
            raise ValueError("wanted the name of an environment variable in capitals, and never the key")
        return name

    @field_validator("body")
    @classmethod
    def _theirs(cls, body: dict[str, Any]) -> dict[str, Any]:
        if taken := [name for name in OURS if name in body]:
            raise ValueError(f"{taken[0]!r} is no further field: {', '.join(OURS)} are set already")
        return body

    @field_validator("omit")
    @classmethod
    def _not_ours(cls, omit: list[str]) -> list[str]:
        if needed := [name for name in omit if name in OURS]:
            raise ValueError(f"{needed[0]!r} is needed; those that may go: max_tokens, temperature, seed")
        return omit

    @model_validator(mode="after")
    def _one_number(self) -> "OpenAIConfig":
        if self.batch_size is not None:
            raise ValueError("batch_size: an endpoint has none; it takes `concurrency` questions at a time")
        return self


def config_of(options: Mapping[str, Any]) -> OpenAIConfig:
    """Read the options of an endpoint. Raises CaptionerError for an unknown key or a wrong value."""
    return read_options(OpenAIConfig, options)


def settings_of(config: OpenAIConfig) -> dict[str, Any]:
    """Return the options that change what is said: which model, and how it is asked; not where it runs, how often and
    how fast it is asked, or what it costs."""
    return config.model_dump(
        include={"model", "revision", "max_tokens", "temperature", "seed_temperature", "omit", "body"}
    )


def weights_of(config: OpenAIConfig) -> tuple[WeightsFile, ...]:
    """Return nothing: nobody here sees the weights of an endpoint; its model's name stands in the settings. Raises
    MissingExtra where nobody could ask it."""
    require(["aiohttp"], "fetch")
    return ()


def question(config: OpenAIConfig, ask: Ask) -> bytes:
    """Return the body of a request, JSON: the picture as a data URL, then the prompt."""
    kind = next((kind for begin, kind in PICTURES if ask.image.startswith(begin)), PICTURES[0][1])
    picture = f"data:{kind};base64,{base64.b64encode(ask.image).decode()}"
    drawn: dict[str, Any] = {"temperature": config.temperature}
    if ask.seed:
        drawn = {"temperature": config.seed_temperature, "seed": seed_of(ask)}
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": ask.prompt}]
    fields = {"max_tokens": config.max_tokens, **drawn, **config.body}
    return json.dumps(
        {
            "model": config.model,
            "messages": [{"role": "user", "content": content}],
            "stream": False,
            **{name: value for name, value in fields.items() if name not in config.omit},
        }
    ).encode()


def seed_of(ask: Ask) -> int:
    """Return the 31 bits by which a second attempt is drawn: of the picture's uid and the question's seed."""
    digest = hashlib.sha256(ask.uid + ask.seed.to_bytes(8, "big")).digest()
    return int.from_bytes(digest[:4], "big") >> 1

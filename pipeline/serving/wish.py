"""Read what a client asks for: one picture, as a JSON object of few fields, each within its range."""

import json
import secrets
from dataclasses import dataclass
from typing import Any

from pipeline.sampling.pick import Sampling

FIELDS = ("prompt", "class", "seed", "cfg_scale", "top_k", "top_p", "temperature")
MOST_SEED = 2**53 - 1
"""The largest whole number that a page's JSON carries exactly."""
FRESH_SEEDS = 2**31
"""A seed that nobody named is drawn below this: short enough to be typed again."""
MOST_TOP_K = 2**31 - 1
DEFAULTS = Sampling(cfg_scale=7.5, top_k=1000)
"""How LlamaGen's own script draws (autoregressive/sample/sample_t2i.py)."""


class WishError(ValueError):
    """A request asks for what cannot be drawn; the message says what was got and what is wanted."""


@dataclass(frozen=True)
class Wish:
    """One picture: what it shows (a prompt, or a class number as text) and how its codes are drawn."""

    text: str
    sampling: Sampling

    def record(self) -> dict[str, Any]:
        """Return what makes the picture, as JSON: it stands in the PNG too."""
        how = self.sampling
        return {
            "text": self.text,
            "seed": how.seed,
            "cfg_scale": how.cfg_scale,
            "top_k": how.top_k,
            "top_p": how.top_p,
            "temperature": how.temperature,
        }


@dataclass(frozen=True)
class Reader:
    """What wishes are read against: the model's kind of condition, the longest prompt, settings that nobody named."""

    classes: int | None  # how many classes; None: the model takes prompts
    prompt_length: int  # characters
    defaults: Sampling = DEFAULTS

    def read(self, body: bytes) -> Wish:
        """Return the wish in the body of a request. Raises WishError."""
        asked = self._object(body)
        unknown = sorted(set(asked) - set(FIELDS))
        if unknown:
            raise WishError(f"unknown field {unknown[0][:80]!r}; fields are {', '.join(FIELDS)}")
        base = self.defaults
        seed = asked.get("seed")
        sampling = Sampling(
            cfg_scale=_number(asked, "cfg_scale", base.cfg_scale, 100),
            top_k=_whole(asked, "top_k", base.top_k, MOST_TOP_K),
            temperature=_number(asked, "temperature", base.temperature, 100),
            top_p=_number(asked, "top_p", base.top_p, 1),
            seed=secrets.randbelow(FRESH_SEEDS) if seed is None else _whole(asked, "seed", 0, MOST_SEED),
            cfg_interval=base.cfg_interval,
        )
        return Wish(self._prompt(asked) if self.classes is None else self._class(asked, self.classes), sampling)

    def _object(self, body: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(body.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_once)
        except UnicodeDecodeError as error:
            raise WishError(f"the body is no UTF-8 (byte {error.start})") from error
        except json.JSONDecodeError as error:
            raise WishError(f"the body is no JSON ({error})") from error
        except (RecursionError, ValueError) as error:  # nested too deep; a number of thousands of digits
            raise WishError(f"the body is no JSON that can be read ({str(error)[:120]})") from error
        if not isinstance(asked, dict):
            raise WishError(f'the body is {_kind(asked)}, wanted an object such as {{"prompt": "a red fox"}}')
        return asked

    def _prompt(self, asked: dict[str, Any]) -> str:
        if asked.get("class") is not None:
            raise WishError("this model draws prompts; 'class' is for models of classes")
        prompt = asked.get("prompt")
        if not isinstance(prompt, str):
            raise WishError(f"prompt is {_kind(prompt)}, wanted a text")
        prompt = prompt.strip()
        if not prompt:
            raise WishError("prompt is empty, wanted a text")
        if len(prompt) > self.prompt_length:
            raise WishError(f"prompt has {len(prompt):,} characters, wanted {self.prompt_length:,} at most")
        if any(0xD800 <= ord(letter) < 0xE000 or letter == "\0" for letter in prompt):
            raise WishError("prompt holds half a character of UTF-16 or a NUL, wanted a text")
        return prompt

    def _class(self, asked: dict[str, Any], classes: int) -> str:
        if asked.get("prompt") is not None:
            raise WishError(f"this model draws {classes:,} classes and no prompts; wanted 'class', 0 to {classes - 1}")
        if asked.get("class") is None:
            raise WishError(f"class is missing, wanted a whole number from 0 to {classes - 1}")
        return str(_whole(asked, "class", 0, classes - 1))


def _number(asked: dict[str, Any], name: str, default: float, most: float) -> float:
    value = asked.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise WishError(f"{name} is {_shown(value)}, wanted a number from 0 to {most:g}")
    return float(value)


def _whole(asked: dict[str, Any], name: str, default: int, most: int) -> int:
    value = asked.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise WishError(f"{name} is {_shown(value)}, wanted a whole number from 0 to {most}")
    return value


def _shown(value: Any) -> str:
    return str(value)[:40] if isinstance(value, int | float) and not isinstance(value, bool) else _kind(value)


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands in it twice")
    return found

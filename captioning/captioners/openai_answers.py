"""Read what a server answered to one question: a caption, a fault that may pass, one that stays, or the end of all."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from captioning.captioner import Answer, CaptionerError
from captioning.captioners.openai_config import OpenAIConfig
from manifests.retry_after import retry_after

BUSY, TIMEOUT = "endpoint_busy", "endpoint_timeout"
CONNECTION, BAD_ANSWER, REFUSED = "endpoint_connection", "endpoint_bad_answer", "endpoint_refused"
MOST_QUOTED = 200
"""Letters of a server's own words that a message holds."""
POLICY = ("content_filter", "content_policy", "content_policy_violation", "moderation_blocked", "safety")
"""What servers call the refusal of one picture or question."""
MOST_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class Fault:
    """Why one try gave no caption.

    `reason`: of manifests/reasons.py. `said`: in words. `passing`: whether the same question is put again. `wait_s`:
    seconds that the server asked for. `alive`: the server works, and turned down this question alone.
    """

    reason: str
    said: str
    passing: bool = True
    wait_s: float | None = None
    alive: bool = False


def read_answer(
    config: OpenAIConfig, uid: bytes, status: int, headers: Mapping[str, str], body: bytes | None
) -> Answer | Fault:
    """Return what became of a question from the server's status, headers and body (none: it was too large).

    Raises CaptionerError for what would come of every question: a key that is not taken, a model that there is not, a
    redirect, a model that answers under another name.
    """
    if status == 200:
        return _caption(config, uid, body)
    told = _parsed(body)
    said, code = _words(told), _code(told)
    what = f"the server at {config.base_url} answers {status}" + (f" ({said})" if said else "")
    if status == 404 or code == "model_not_found":
        raise CaptionerError(f"{what}: wanted a base_url of chat completions, and of its models' names {config.model}")
    if status in (401, 403) and code not in POLICY:
        held = f"the key in ${config.api_key_env}" if config.api_key_env else "no key (caption.NAME.api_key_env)"
        raise CaptionerError(f"api_key_env: the server at {config.base_url} answers {status} to {held}")
    if 300 <= status < 400:
        raise CaptionerError(f"{what} and sends on elsewhere; nothing is sent after it: give the place as base_url")
    if status == 402 or code == "insufficient_quota":
        raise CaptionerError(f"{what}: the account pays for no more; a rerun asks for the rest")
    if status == 429 or status in (408, 409, 425) or status >= 500:
        wait_s = retry_after(headers.get("Retry-After"), headers.get("Date"))
        return Fault(BUSY, what, wait_s=wait_s)
    return Fault(REFUSED, what, passing=False, alive=code in POLICY)


def _caption(config: OpenAIConfig, uid: bytes, body: bytes | None) -> Answer | Fault:
    told = _parsed(body)
    if not isinstance(told, dict):
        size = "too large a body" if body is None else f"{len(body)} bytes"
        return Fault(BAD_ANSWER, f"{size} that are no JSON object")
    if "choices" not in told and "error" in told:  # as gateways say it
        refused = _code(told) in POLICY
        return Fault(REFUSED if refused else BUSY, _words(told), passing=not refused, alive=refused)
    _check_model(config, told.get("model"))
    choices = told.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        return Fault(BAD_ANSWER, "an answer without choices")
    ended, text = choice.get("finish_reason"), _text(choice["message"].get("content"))
    if ended in POLICY or (choice["message"].get("refusal") and not text):
        return Fault(REFUSED, "the picture or the question was turned down", passing=False, alive=True)
    if text is None:
        return Fault(BAD_ANSWER, "a choice without content")
    usage = told.get("usage")
    return Answer(
        uid,
        text.strip(),
        tokens=_count(usage, "completion_tokens"),
        prompt_tokens=_count(usage, "prompt_tokens"),
        at_limit=ended == "length",
    )


def _check_model(config: OpenAIConfig, named: object) -> None:
    """Raise CaptionerError where another model answered; a server may leave its name out, or add a date."""
    wanted = config.answers_as or config.model
    if not isinstance(named, str) or named == wanted:
        return
    if config.answers_as is None and named.startswith(f"{wanted}-"):
        return
    raise CaptionerError(
        f"model: {wanted!r} was asked for and {_line(named)!r} answers; where that is the same model, say"
        f" answers_as = {_line(named)!r}"
    )


def _parsed(body: bytes | None) -> Any:
    try:
        return json.loads(body or b"")
    except (ValueError, RecursionError):
        return None


def _error(told: Any) -> dict[str, Any]:
    error = told.get("error", told) if isinstance(told, dict) else None
    return error if isinstance(error, dict) else {"message": error}


def _words(told: Any) -> str:
    error = _error(told)
    return _line(next((error[name] for name in ("message", "detail") if isinstance(error.get(name), str)), ""))


def _code(told: Any) -> str:
    error = _error(told)
    return next((str(error[name]) for name in ("code", "type") if isinstance(error.get(name), str)), "")


def _line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:MOST_QUOTED]


def _text(content: object) -> str | None:
    """Return the text of a message: a string, or the text parts of a list. Half a character becomes a question mark."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str)) if parts else None
    return content.encode("utf-8", "replace").decode() if isinstance(content, str) else None


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return min(value, MOST_TOKENS) if type(value) is int and value >= 0 else 0

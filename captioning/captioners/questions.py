"""Bring questions to a model: prepared ahead of it, those that cannot be asked answered with a reason."""

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from captioning.captioner import Ahead, Answer, Ask, CaptionerError
from captioning.captioners.prepare import inputs_of, inputs_of_picture
from captioning.captioners.refill import Question
from captioning.captioners.transformers_files import TransformersConfig
from manifests.weights import WeightsError

if TYPE_CHECKING:
    import torch
    from PIL import Image
CHUNK = 4
"""Questions that are prepared together ahead of the model."""
TRUSTED = 3
"""Rows that fail before anything has worked: then it is not the pictures."""


class Owner(Protocol):
    """Whose model the questions are for."""

    name: str
    model: str
    config: TransformersConfig
    ahead: Ahead
    processor: Any
    folder: str
    """Where processes ahead of the model find the processor."""

    def to_device(self, inputs: Any) -> "dict[str, torch.Tensor]":
        """Return arrays as tensors where the model is."""
        ...


@dataclass
class Questions:
    """The questions of one call on their way to a model, prepared ahead of it, and what becomes of those that fail.

    `pictures`: uid -> picture, where those who ask have them opened.
    """

    owner: Owner
    asks: Iterator[Ask]
    pictures: "dict[bytes, Image.Image]" = field(default_factory=dict)
    worked: bool = False
    last_error: str = ""
    _failed: list[Answer] = field(default_factory=list)
    _errors: int = 0

    def __iter__(self) -> Iterator[Question]:
        """Yield questions; those that cannot be asked are in `failed`."""
        begun: deque[tuple[list[Ask], Any]] = deque()
        ahead, drained = self.owner.ahead, False
        while begun or not drained:
            while not drained and len(begun) < (2 * ahead.count or 1):
                some = list(islice(self.asks, CHUNK if ahead.count else 1))
                drained = not some
                if some:
                    begun.append((some, self._begin(some)))
            if begun:
                some, wait = begun.popleft()
                yield from self._ready(some, wait)

    def _begin(self, some: list[Ask]) -> Any:
        if self.pictures:
            processor = self.owner.processor
            return lambda: [inputs_of_picture(processor, self.pictures[ask.uid], ask.prompt) for ask in some]
        work = partial(inputs_of, folder=self.owner.folder)
        return self.owner.ahead.begin([(ask.image, ask.prompt) for ask in some], _Caught(work))

    def _ready(self, some: list[Ask], wait: Any) -> Iterator[Question]:
        for ask, inputs in zip(some, wait(), strict=True):
            if isinstance(inputs, str):
                self._failed.append(Answer(ask.uid, reason=inputs))
            elif isinstance(inputs, _Fault):
                self.fail(ask, inputs.said)
            else:
                yield Question(ask, self.owner.to_device(inputs), self.owner.config.max_new_tokens)

    def fail(self, ask: Ask, said: str) -> None:
        """Note a question that the model cannot take. Raises CaptionerError where none works."""
        self._errors, self.last_error = self._errors + 1, said
        if self._errors >= TRUSTED and not self.worked:
            raise CaptionerError(
                f"{self.owner.name}: {self.owner.model} failed on each of the first {self._errors} pictures: {said}"
            )
        self._failed.append(Answer(ask.uid, reason="captioner_failed"))

    def failed_to_read(self, question: Question, error: Exception) -> None:
        """Note a question on which the model failed. Raises CaptionerError where none works."""
        self.fail(question.key, f"{type(error).__name__}: {error}")

    def failed(self) -> Iterator[Answer]:
        """Yield the answers that were no model's, and forget them."""
        while self._failed:
            yield self._failed.pop()

    def choose(self, ask: Ask, logits_V: Any, place: int) -> int:
        """Return the next token: the most likely one, or one that is drawn by hash(uid, seed, place)."""
        if not ask.seed:
            return int(logits_V.argmax())
        return drawn(logits_V, self.owner.config, ask.uid, ask.seed, place)

    def answer(self, question: Question, tokens: list[int], at_limit: bool) -> Answer:
        """Return the answer to a question that the model gave."""
        self.worked = True
        text = self.owner.processor.tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Answer(question.key.uid, text.strip(), len(tokens), question.tokens, at_limit)


@dataclass(frozen=True)
class _Fault:
    said: str


@dataclass(frozen=True)
class _Caught:
    """A work whose errors come back as values: one picture's must not end a process that prepares others."""

    work: Any

    def __call__(self, item: Any) -> Any:
        """Return what the work returns, or its error."""
        try:
            return self.work(item)
        except WeightsError:
            raise
        except Exception as error:
            return _Fault(f"{type(error).__name__}: {error}")


def drawn(logits_V: Any, config: TransformersConfig, uid: bytes, seed: int, place: int) -> int:
    """Return a token drawn from the likeliest whose share is `top_p`, at a temperature, by hash(uid, seed, place): the
    same whoever is beside it."""
    import torch

    shares, order = torch.softmax(logits_V.double().cpu() / config.temperature, 0).sort(descending=True, stable=True)
    below = shares.cumsum(0) - shares
    shares = torch.where(below < config.top_p, shares, 0.0)
    digest = hashlib.sha256(uid + seed.to_bytes(8, "big") + place.to_bytes(8, "big")).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    found = int(torch.searchsorted(shares.cumsum(0), share * float(shares.sum()), right=True))
    return int(order[min(found, int((shares > 0).sum()) - 1)])

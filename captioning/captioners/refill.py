"""Decode many answers side by side over a static cache: a slot whose answer ends is given the next question at once.

Each question is read alone, as `generate` reads one; its keys and values are copied into its slot. From then on all
slots take a token a step in one forward pass, each at its own position, so that no slot waits for the longest answer.
transformers' own continuous batching (5.23) takes token lists alone, no pictures.
"""

# Shapes: S slots, T tokens of a question, L tokens that a slot holds at most, H heads of keys, D width of a head.
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from captioning.captioner import CaptionerError

if TYPE_CHECKING:
    import torch
STEP = 128
"""Tokens by which the cache grows, and by which attention looks at it."""
FULL = ("out of memory", "can't allocate memory", "not enough memory", "_status_alloc_failed")
"""How allocators say that memory is full where they raise no class of their own."""
Choose = Callable[[Any, "torch.Tensor", int], int]
"""(key of the question, logits (V,) float32, number of tokens so far) -> the next token."""


@dataclass(frozen=True)
class Question:
    """One question, ready for the model: `inputs` as its processor gives them, for one picture alone."""

    key: Any
    inputs: "Mapping[str, torch.Tensor]"
    limit: int
    """Tokens of the answer at most."""

    @property
    def tokens(self) -> int:
        """Return the number of tokens of the question, those of the picture included."""
        return int(self.inputs["input_ids"].shape[1])


@dataclass
class Slot:
    """An answer under way."""

    question: Question
    tokens: list[int]
    place: int
    """Where the last token's key and value will stand."""
    shift: int
    """What is added to the place for the position that the model is told: pictures may count fewer positions."""


@dataclass
class Counts:
    """What was done: forward passes over the slots, tokens that were kept of them, questions read, answers, times that
    memory was full."""

    steps: int = 0
    ended: int = 0
    offered: int = 0
    useful: int = 0
    read: int = 0
    halved: int = 0

    @property
    def share(self) -> float:
        """Return the share of decoded slots whose token was kept."""
        return self.useful / self.offered if self.offered else 0.0


@dataclass
class Refill:
    """A model, and as many answers at a time as there are slots."""

    model: Any
    slots: int
    ends: frozenset[int]
    choose: Choose
    forward: Any = None
    """What takes a step: the model, or a compiled form of it."""
    failed: "Callable[[Question, Exception], None] | None" = None
    """Told of a question on which the model failed, which is passed over; none: the error is raised."""
    counts: Counts = field(default_factory=Counts)
    _reading: Question | None = None
    _blamed: Question | None = None
    """The question whose reading found memory full last, and the slots that there were then."""
    _before: int = 0
    _open: "list[Slot | None]" = field(default_factory=list)
    _again: "deque[Question]" = field(default_factory=deque)
    """Drawn, and in no slot: those that memory had no room for, and the one that is being read."""
    _cache: Any = None

    def answers(self, questions: Iterator[Question]) -> "Iterator[tuple[Question, list[int], bool]]":
        """Yield (question, tokens of its answer without the ending one, whether it stopped at its limit) as they end.

        Questions are drawn when a slot is free. Raises CaptionerError where memory does not hold a single one.
        """

        self._open, self._again = [None] * self.slots, deque()
        while True:
            try:
                for place in range(len(self._open)):
                    yield from self._filled(place, questions)
                if not any(self._open):
                    return
                yield from self._step()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)

    def _filled(self, place: int, questions: Iterator[Question]) -> "Iterator[tuple[Question, list[int], bool]]":
        """Give a free slot the next question; yield the answers of those that end with their first token."""
        while self._open[place] is None:
            if not self._again:
                question = next(questions, None)
                if question is None:
                    return
                self._again.append(question)  # until it is in its slot
            self._reading = self._again[0]
            ended = self._tried(place, self._reading)
            self._reading = None
            self._again.popleft()
            if ended is not None:
                self.counts.ended += 1
                yield ended

    def _tried(self, place: int, question: Question) -> "tuple[Question, list[int], bool] | None":
        try:
            return self._read(place, question)
        except Exception as error:
            if self.failed is None or is_out_of_memory(error):
                raise
            self.failed(question, error)
            return None

    def _read(self, place: int, question: Question) -> "tuple[Question, list[int], bool] | None":
        """Read a question alone and put it into a slot; return its answer where that ends with the first token."""
        import torch
        from transformers import DynamicCache

        cache = DynamicCache()
        with torch.inference_mode():
            out = self.model(**question.inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
        self.counts.read += 1
        token = self.choose(question.key, out.logits[0, -1].float(), 0)
        if token in self.ends or question.limit == 1:
            return question, [] if token in self.ends else [token], token not in self.ends
        deltas = getattr(getattr(self.model, "model", None), "rope_deltas", None)
        shift = 0 if deltas is None else int(deltas.reshape(-1)[0])
        self._make_room(cache, question.tokens + question.limit)
        for own, alone in zip(self._cache.layers, cache.layers, strict=True):
            own.put(place, alone.keys[0], alone.values[0])
        self._open[place] = Slot(question, [token], question.tokens, shift)
        return None

    def _make_room(self, like: Any, length: int) -> None:
        length = -(-length // STEP) * STEP
        if self._cache is None or self._cache.length < length:
            from captioning.captioners.slot_cache import SlotCache  # transformers loads only here

            self._cache = SlotCache(like, len(self._open), length, self._cache)

    def _step(self) -> "Iterator[tuple[Question, list[int], bool]]":
        """Take a token in every slot; yield the answers that end with it."""
        import torch

        device, dtype = self._cache.layers[0].keys.device, self._cache.layers[0].keys.dtype
        last = torch.tensor([[slot.tokens[-1] if slot else 0] for slot in self._open], device=device)
        where = torch.tensor([slot.place if slot else 0 for slot in self._open], device=device)
        shift = torch.tensor([slot.shift if slot else 0 for slot in self._open], device=device)
        seen = min(self._cache.length, -(-(max(slot.place for slot in self._open if slot) + 1) // STEP) * STEP)
        self._cache.look(torch.arange(len(self._open), device=device), where, seen)
        hidden = torch.arange(seen, device=device)[None] > where[:, None]
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, torch.finfo(dtype).min)
        with torch.inference_mode():
            out = (self.forward or self.model)(
                input_ids=last,
                attention_mask=mask[:, None, None],
                position_ids=(where + shift)[:, None],
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits_SV = out.logits[:, -1].float()
        self.counts.steps += 1
        self.counts.offered += len(self._open)
        for place, slot in enumerate(self._open):
            if slot is None:
                continue
            token = self.choose(slot.question.key, logits_SV[place], len(slot.tokens))
            self.counts.useful += 1
            if token not in self.ends:
                slot.tokens.append(token)
                slot.place += 1
                if len(slot.tokens) < slot.question.limit:
                    continue
            self._open[place] = None
            self.counts.ended += 1
            yield slot.question, slot.tokens, token not in self.ends

    def _halve(self, error: Exception) -> None:
        """Give up half of the slots: what they had under way is asked again.

        A question that one slot alone cannot read, where others were answered, is passed over, and the slots are as
        many as before it. Raises CaptionerError where none was.
        """
        import torch

        half, reading = len(self._open) // 2, self._reading
        if reading is not None and reading is not self._blamed:
            self._blamed, self._before = reading, len(self._open)
        if not half and (reading is None or self.failed is None or not self.counts.ended):
            raise CaptionerError(f"the memory of the device does not hold one question ({error})") from error
        under_way = [slot.question for slot in self._open if slot]
        if not half and reading is not None and self.failed is not None:
            self._again.popleft()
            self.failed(reading, error)
            half = self._before
        self._again.extend(under_way)
        self.slots, self._open, self._cache, self._reading = half, [None] * half, None, None
        self.counts.halved += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory is full: torch has a class for it on a GPU, other places say it in
    words."""
    import torch

    said = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in said for words in FULL)
    )


def can_refill(model: Any) -> bool:
    """Tell whether every layer of a model's language part attends to all that came before, and to nothing else."""
    text = model.config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    crossed = getattr(text, "cross_attention_layers", None) or getattr(model.config, "is_encoder_decoder", False)
    return kinds == {"full_attention"} and not crossed

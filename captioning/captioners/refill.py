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
    """What was done: forward passes over the slots, tokens that were kept of them, questions read, times that the slots
    were halved for want of memory."""

    steps: int = 0
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
    _open: "list[Slot | None]" = field(default_factory=list)
    _cache: Any = None

    def answers(self, questions: Iterator[Question]) -> "Iterator[tuple[Question, list[int], bool]]":
        """Yield (question, tokens of its answer without the ending one, whether it stopped at its limit) as they end.

        Questions are drawn when a slot is free. Raises CaptionerError where memory does not hold a single one.
        """
        import torch

        again: deque[Question] = deque()
        self._open, more = [None] * self.slots, True
        while True:
            try:
                for place in range(len(self._open)):
                    while self._open[place] is None and (again or more):
                        question = again.popleft() if again else next(questions, None)
                        if question is None:
                            more = False
                            break
                        again.appendleft(question)  # until it is in its slot
                        ended = self._tried(place, question)
                        again.popleft()
                        if ended is not None:
                            yield ended
                if not any(self._open):
                    return
                yield from self._step()
            except torch.OutOfMemoryError as error:
                self._halve(again, error)

    def _tried(self, place: int, question: Question) -> "tuple[Question, list[int], bool] | None":
        import torch

        try:
            return self._read(place, question)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if self.failed is None:
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
            self._cache = slot_cache(like, len(self._open), length, self._cache)

    def _step(self) -> "Iterator[tuple[Question, list[int], bool]]":
        """Take a token in every slot; yield the answers that end with it."""
        import torch

        device, dtype = self._cache.layers[0].keys.device, self._cache.layers[0].keys.dtype
        last = torch.tensor([[slot.tokens[-1] if slot else 0] for slot in self._open], device=device)
        where = torch.tensor([slot.place if slot else 0 for slot in self._open], device=device)
        shift = torch.tensor([slot.shift if slot else 0 for slot in self._open], device=device)
        seen = min(self._cache.length, -(-(max(slot.place for slot in self._open if slot) + 1) // STEP) * STEP)
        self._cache.look(where, seen)
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
            yield slot.question, slot.tokens, token not in self.ends

    def _halve(self, again: "deque[Question]", error: Exception) -> None:
        """Give up half of the slots: what they had under way is asked again."""
        import torch

        half = len(self._open) // 2
        if not half:
            raise CaptionerError(f"the memory of the device does not hold one question ({error})") from error
        under_way = [slot.question for slot in self._open if slot]
        again.extend(question for question in under_way if question not in again)
        self.slots, self._open, self._cache = half, [None] * half, None
        self.counts.halved += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def can_refill(model: Any) -> bool:
    """Tell whether every layer of a model's language part attends to all that came before, and to nothing else."""
    text = model.config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    crossed = getattr(text, "cross_attention_layers", None) or getattr(model.config, "is_encoder_decoder", False)
    return kinds == {"full_attention"} and not crossed


def slot_cache(like: Any, slots: int, length: int, before: Any = None) -> Any:
    """Return a cache of `slots` slots of `length` tokens for the layers of a cache of one question; what `before` holds
    stands in it."""
    from transformers.cache_utils import Cache, CacheLayerMixin

    class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
        """Keys and values (S, H, L, D) of a layer; each slot is written at its own place."""

        def __init__(self, one: Any, old: Any) -> None:
            super().__init__()
            self.keys, self.values = (self._room(old_part, part) for old_part, part in self._parts(one, old))
            self.where: Any = None
            self.seen = length
            self.is_initialized = True

        @staticmethod
        def _parts(one: Any, old: Any) -> list[tuple[Any, Any]]:
            return [(getattr(old, name, None), getattr(one, name)) for name in ("keys", "values")]

        @staticmethod
        def _room(old: Any, one: Any) -> Any:
            room = one.new_zeros((slots, one.shape[1], length, one.shape[3]))
            if old is not None:
                room[:, :, : old.shape[2]] = old
            return room

        def put(self, place: int, keys_HTD: Any, values_HTD: Any) -> None:
            self.keys[place, :, : keys_HTD.shape[1]] = keys_HTD
            self.values[place, :, : values_HTD.shape[1]] = values_HTD

        def lazy_initialization(self, key_states: Any, value_states: Any) -> None:
            """Do nothing: the room is there from the start."""

        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            rows = self.where.new_tensor(range(slots))
            self.keys[rows, :, self.where] = key_states[:, :, 0]
            self.values[rows, :, self.where] = value_states[:, :, 0]
            return self.keys[:, :, : self.seen], self.values[:, :, : self.seen]

        def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
            return self.seen, 0

        def get_seq_length(self) -> int:
            return self.seen

        def get_max_length(self) -> int:
            return length

    class SlotCache(Cache):  # type: ignore[misc]
        """One layer each; `look` says where the next token of every slot stands, and how far all are looked at."""

        def __init__(self) -> None:
            olds = before.layers if before is not None else [None] * len(like.layers)
            super().__init__(layers=[SlotLayer(one, old) for one, old in zip(like.layers, olds, strict=True)])
            self.length = length

        def look(self, where: Any, seen: int) -> None:
            for layer in self.layers:
                layer.where, layer.seen = where, seen

    return SlotCache()

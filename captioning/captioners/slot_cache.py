"""Keep the keys and values of answers that are decoded side by side, each at a place of its own in its slot."""

# Shapes: S slots, H heads of keys, L tokens that a slot holds at most, T of them, D width of a head.
from typing import Any

from transformers.cache_utils import Cache, CacheLayerMixin


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers has no types
    """Keys and values (S, H, L, D) of a layer; each slot is written at its own place."""

    def __init__(self, one: Any, slots: int, length: int, old: Any) -> None:
        """`one`: the layer of a cache of one question, for its shape; `old`: a layer whose slots stand in this one."""
        super().__init__()
        self.keys = _room(one.keys, slots, length, getattr(old, "keys", None))
        self.values = _room(one.values, slots, length, getattr(old, "values", None))
        self.rows = self.where = self.keys.new_zeros(0).long()
        self.seen = self.length = length
        self.is_initialized = True

    def put(self, place: int, keys_HTD: Any, values_HTD: Any) -> None:
        """Let a slot hold a question that was read alone."""
        self.keys[place, :, : keys_HTD.shape[1]] = keys_HTD
        self.values[place, :, : values_HTD.shape[1]] = values_HTD

    def lazy_initialization(self, key_states: Any, value_states: Any) -> None:
        """Do nothing: the room is there from the start."""

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write one token of every slot, (S, H, 1, D), and return what all slots look at."""
        self.keys[self.rows, :, self.where] = key_states[:, :, 0]
        self.values[self.rows, :, self.where] = value_states[:, :, 0]
        return self.keys[:, :, : self.seen], self.values[:, :, : self.seen]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many tokens are looked at, and where they begin."""
        return self.seen, 0

    def get_seq_length(self) -> int:
        """Return how many tokens are looked at."""
        return int(self.seen)

    def get_max_length(self) -> int:
        """Return how many tokens a slot holds."""
        return int(self.length)


class SlotCache(Cache):  # type: ignore[misc]
    """A SlotLayer for each layer; `look` says where the next token of every slot stands, and how far all look."""

    def __init__(self, like: Any, slots: int, length: int, before: Any = None) -> None:
        """`like`: a cache of one question, for its shapes; `before`: a shorter one, whose slots stand in this one."""
        olds = before.layers if before is not None else [None] * len(like.layers)
        layers = [SlotLayer(one, slots, length, old) for one, old in zip(like.layers, olds, strict=True)]
        super().__init__(layers=layers)
        self.length = length

    def look(self, rows_S: Any, where_S: Any, seen: int) -> None:
        """Say where the next token of each slot is written, and how many tokens of all slots are looked at."""
        for layer in self.layers:
            layer.rows, layer.where, layer.seen = rows_S, where_S, seen


def _room(one: Any, slots: int, length: int, old: Any) -> Any:
    room = one.new_zeros((slots, one.shape[1], length, one.shape[3]))
    if old is not None:
        room[:, :, : old.shape[2]] = old
    return room

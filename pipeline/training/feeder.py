"""Put batches on the device: codes and conditions, on a GPU those of the next step while this one computes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.gpt import Condition
from pipeline.loading.batch import Batch
from pipeline.training.conditions import Conditioner, TextCondition
from pipeline.training.text_features import T5Text, width_of
from tokenize_shards.samples import Features


class Fed(NamedTuple):
    """One part of a step, for one forward pass."""

    codes_BN: Tensor
    condition: Condition
    dense: bool
    """Some caption has no token: see `GPT.forward`."""

    @property
    def text_tokens(self) -> int:
        """Return the positions of the condition: its padding counts, which is computed with too."""
        return self.condition[0].shape[1] if isinstance(self.condition, tuple) else 1


@dataclass(frozen=True)
class Feeder:
    """What turns batches into parts on a device."""

    condition: Conditioner
    device: torch.device
    micro_batch: int | None = None
    """Pictures of a part; None: all of a batch."""

    def feed(self, batches: Iterator[Batch]) -> Iterator[list[Fed]]:
        """Yield the parts of each batch.

        On a GPU a batch's copies and text features are in flight, in a stream of their own, while the parts before are
        computed with; whoever takes them has the device wait for them, never the host.
        """
        if self.device.type != "cuda":
            yield from map(self.parts, batches)
            return
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        before: tuple[list[Fed], torch.cuda.Event] | None = None
        for batch in batches:
            with torch.cuda.stream(stream):
                parts = self.parts(batch)
                event = stream.record_event()
            if before is not None:
                yield self._taken(*before)
            before = parts, event
        if before is not None:
            yield self._taken(*before)

    def _taken(self, parts: list[Fed], event: torch.cuda.Event) -> list[Fed]:
        current = torch.cuda.current_stream(self.device)
        current.wait_event(event)
        for part in parts:
            tensors = part.condition if isinstance(part.condition, tuple) else (part.condition,)
            for tensor in (part.codes_BN, *tensors):
                tensor.record_stream(current)  # its memory is not given to the other stream before this one is through
        return parts

    def parts(self, batch: Batch) -> list[Fed]:
        """Return the parts of a batch."""
        size = self.micro_batch or len(batch)
        slices = [slice(start, min(start + size, len(batch))) for start in range(0, len(batch), size)]
        return [self.part(batch, part) for part in slices]

    def part(self, batch: Batch, part: slice) -> Fed:
        """Return a part's codes (B, N) and condition on the device; features that are not stored are computed."""
        codes_BN = self._sent(torch.from_numpy(batch.codes_BN[part]))
        captions, stored = batch.captions_B[part], batch.features_B[part]
        if isinstance(self.condition, TextCondition) and isinstance(self.condition.text, T5Text) and codes_BN.is_cuda:
            features_BTC, lengths = self._on_device(captions, stored)
            return Fed(codes_BN, (features_BTC, self._sent(torch.tensor(lengths))), 0 in lengths)
        condition = self.condition.of(captions, stored)
        if isinstance(condition, Tensor):
            return Fed(codes_BN, self._sent(condition), False)
        features_BTC, lengths_B = condition
        return Fed(codes_BN, (self._sent(features_BTC), self._sent(lengths_B)), bool((lengths_B == 0).any()))

    def _on_device(self, captions: Sequence[str], stored: Sequence[Features | None]) -> tuple[Tensor, list[int]]:
        """Return features (B, T, C), padded on the left, and their lengths; what is computed never leaves the
        device."""
        assert isinstance(self.condition, TextCondition)
        assert isinstance(self.condition.text, T5Text)
        missing = [caption for caption, array in zip(captions, stored, strict=True) if array is None]
        computed_XC, counts = self.condition.text.on_device(missing)
        computed_XC = computed_XC.float()  # as stored ones are: a sample's numbers depend on no neighbour's
        given = [self._sent(torch.from_numpy(array)) for array in stored if array is not None]
        pool_XC = torch.cat(
            [computed_XC.new_zeros(1, computed_XC.shape[1]), computed_XC, *(a.to(computed_XC) for a in given)]
        )
        return gathered(pool_XC, placed([None if a is None else len(a) for a in stored], counts), self.condition)

    def _sent(self, tensor: Tensor) -> Tensor:
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)


def placed(stored: Sequence[int | None], counts: Sequence[int]) -> list[tuple[int, int]]:
    """Return (first row, rows) of each caption's vectors in a pool: a row of zeros, then the computed ones in turn,
    then the stored ones. stored: the lengths of those that are, None for the others, of which `counts` are."""
    computed, given = iter(counts), 1 + sum(counts)
    at, found = 1, []
    for length in stored:
        if length is None:
            count = next(computed)
            found.append((at, count))
            at += count
        else:
            found.append((given, length))
            given += length
    return found


def gathered(pool_XC: Tensor, places: Sequence[tuple[int, int]], condition: TextCondition) -> tuple[Tensor, list[int]]:
    """Return (B, T, C) with each caption's vectors in the last slots and zeros before, and the lengths; what exceeds
    `cond_len` is cut at the end. Row 0 of the pool is the zeros."""
    lengths = [min(count, condition.cond_len) for _, count in places]
    width = width_of(lengths, condition.cond_len, condition.multiple)
    rows = [
        [0] * (width - length) + list(range(start, start + length))
        for (start, _), length in zip(places, lengths, strict=True)
    ]
    return pool_XC[torch.tensor(rows).to(pool_XC.device, non_blocking=True)], lengths

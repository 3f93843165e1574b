"""Load codes for training: `CodeLoader`, a torch IterableDataset over the packed index of a tier."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch.utils.data import IterableDataset, get_worker_info

from manifests.roots import place_of
from pipeline.loading.batch import Batch, Expected
from pipeline.loading.captions import Drawing
from pipeline.loading.loader import CodeSet, Loader, Reading, Share
from pipeline.loading.selection import Selection
from pipeline.loading.window import Source
from pipeline.recipes.train import check_weights
from pipeline.training.caption_sources import check_sources
from tokenize_shards.packed_index import open_packed_index
from tokenize_shards.samples import LoaderError, first_sample

__all__ = ["Batch", "CodeLoader"]
ENOUGH = 1000
"""Samples that are looked at for the caption sources asked for; more while one has not been seen."""


class CodeLoader(IterableDataset[Batch]):
    """Batches of a tier's codes for ever, from one step on.

    Over all processes each uid comes once per epoch, in an order that depends on (seed, epoch) alone. Under a
    DataLoader with `batch_size=None` and several workers the batches come in the same order.
    """

    def __init__(
        self,
        folder: str | Path,
        batch: int = 64,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        step: int = 0,
        captions: Mapping[str, float] | None = None,
        prefetch: int = 8,
    ) -> None:
        """folder: RUN/codes/TIER. batch: samples per process and step. step: the first one that is read.

        captions: source -> weight of what is drawn; none: alt alone. Raises LoaderError.
        """
        self.folder, self.captions = place_of(str(folder)), dict(captions or {"alt": 1.0})
        self.share, self.seed, self.step, self.prefetch = Share(rank, world, batch), seed, step, prefetch
        if not 0 <= rank < world:
            raise ValueError(f"rank is {rank}, wanted 0 to {world - 1} (world {world})")
        for name, value, least in (("batch", batch, 1), ("step", step, 0), ("prefetch", prefetch, 0)):
            if value < least:
                raise ValueError(f"{name} is {value}, wanted {least} or more")
        check_weights(self.captions)
        self.index = open_packed_index(self.folder)
        if not self.index.samples:
            raise LoaderError(f"{self.folder}: no sample of codes; wanted a folder like RUN/codes/TIER")
        sample = first_sample(self.index.shards)
        self.tokenizer = sample.tokenizer
        if sample.captions or sample.label is None:
            check_sources(self.index, self.captions, enough=ENOUGH)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        expected = Expected(self.tokenizer, Drawing(self.captions), self.seed)
        codes = CodeSet(Source(self.index, Selection()), expected, Reading())
        loader = Loader([codes], self.share, self.prefetch)
        try:
            yield from loader.steps(self.step + number, workers)
        finally:
            loader.close()

"""A captioner of fixed words and a run that it captions: how wide a picture is, and which questions it was asked."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from captioning.captioner import Answer
from filters.images.decode import ImageFault, ImageLimits, open_picture
from manifests.files import digest_of, write_table
from manifests.shards import write_shard
from pipeline.execution.step import Unit
from pipeline.recipes.load import parse_recipe
from pipeline.steps.caption import ASKED, CaptionStep, CaptionWorker
from tests.support.records import uid
from tests.support.small_web import jpeg, picture


def recipe_of(size=2):
    """Return a recipe that has so many pictures described together."""
    caption = {"batch_size": size, "llava": {"model": "stand-in"}}
    return parse_recipe({"caption": caption, "tier": {"fine": {"size": 16, "caption": "llava"}}})


def number_of(uid: bytes) -> int:
    """Return the number of a picture by its uid."""
    return int.from_bytes(uid, "big") // int.from_bytes(b"\x01" * 16, "big")


class Words:
    """Says how wide a picture is, `size` pictures at a time; what it was asked goes to `asked`, batch by batch."""

    name, version, model, revision = "llava", 1, "words", "r"

    def __init__(self, size=2, log=None, seconds=0.0):
        self.size, self.asked, self.log, self.seconds = size, [], log, seconds

    def answers(self, asks):
        some = []
        for ask in asks:
            some.append(ask)
            if len(some) == self.size:
                yield from self._batch(some)
                some = []
        if some:
            yield from self._batch(some)

    def _batch(self, asks):
        self.asked.append([number_of(ask.uid) for ask in asks])
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write("".join(f"{ask.uid.hex()}\n" for ask in asks))
        time.sleep(self.seconds)
        return [self._answer(ask) for ask in asks]

    def _answer(self, ask):
        try:
            wide = open_picture(ask.image, ImageLimits(), stored=True).width
        except ImageFault as fault:
            return Answer(ask.uid, reason=fault.reason)
        return Answer(ask.uid, f"It is {wide} wide. {ask.prompt}", 5, 7)


class Refilling(Words):
    """The same, but each answer makes room for the next question: the last drawn is answered first."""

    def answers(self, asks):
        asks, some = iter(asks), []
        while True:
            while len(some) < self.size and (ask := next(asks, None)) is not None:
                some.append(ask)
            if not some:
                return
            yield from self._batch([some.pop()])


@dataclass(frozen=True)
class Captioned(CaptionStep):
    """Six shards of pictures, 20 each unless the recipe folder's file `rows` says otherwise; the file `size` says how
    many are described at once."""

    def plan(self):
        return [self.unit(shard) for shard in range(6)]

    def unit(self, shard):
        plan, tar = f"manifests/plan/caption/llava-{shard:05d}.parquet", f"pairs/{shard:05d}.tar"
        reads = {"plan": plan, "tar": tar, "captioner": "llava", "made_by": self.made_by("llava")}
        return Unit(f"llava-{shard:05d}", reads, digest_of([shard]))

    def open(self):
        size, kind = (self.root / "size").read_text().split()
        kind = {"static": Words, "refilled": Refilling}[kind]
        return CaptionWorker(self, {"llava": kind(int(size), self.root / "asked.txt", 0.05)})


def captioned_run(root: Path, rows: int = 20, size: int = 2, kind: str = "static") -> Captioned:
    """Write pictures and plans of six shards, and return the step over them."""
    step = Captioned(recipe_of(size), root)
    root.mkdir(exist_ok=True)
    (root / "size").write_text(f"{size} {kind}")
    for shard in range(6):
        numbers = range(shard * rows, shard * rows + rows)
        write_plan(root / f"manifests/plan/caption/llava-{shard:05d}.parquet", numbers)
        bodies = [(uid(n).hex(), {"jpg": jpeg(picture(n % 50, 40 + n % 50, 48))}) for n in numbers]
        write_shard(root / f"pairs/{shard:05d}.tar", bodies)
    return step


def write_plan(path: Path, numbers, **values) -> None:
    """Write what is asked of these pictures: describe_v1, greedy, unless `values` say otherwise."""
    said = {"prompt": "describe_v1", "seed": 0, "alt": None, "top_caption": None, **values}
    write_table(path, pa.Table.from_pylist([{"uid": uid(n), **said} for n in numbers], schema=ASKED))


def asked_for(root: Path) -> list[str]:
    """Return the uids that were asked for, in order, as often as they were."""
    path = root / "asked.txt"
    return path.read_text().split() if os.path.exists(path) else []

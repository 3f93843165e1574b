"""Look through a shard of the fetch for rows that lists and evaluation sets name by more than a pHash: by digests of
files, sha256 of pictures, embeddings, texts."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.decontaminate import Prompts
from filters.dedup import Array, most_alike
from filters.digest_lists import DigestLists
from filters.tombstones import digests
from manifests.files import read_json, read_schema, read_table, write_json, writing
from manifests.journal import records_of
from manifests.plans import planned_tables
from manifests.store import mapped
from manifests.tombstones import BY_TOMBSTONE, read_tombstones
from pipeline.recipes.lists import evaluation_images, evaluation_prompts, exclusions
from pipeline.recipes.schema import Recipe
from pipeline.steps.marks import FOUND, found_marks, found_matches
from pipeline.steps.score import EMBEDDING, Score


class Shard(NamedTuple):
    """The tables of one shard of the fetch, relative to the run folder, "" where one is not there; `rows`: how many
    pictures its scores have."""

    plan: str = ""
    pairs: str = ""
    scores: str = ""
    rows: int = 0


def shards_of(root: Path) -> list[Shard]:
    """Return the shards of the fetch, in order."""
    found: dict[str, Shard] = {
        path.stem: Shard(path.relative_to(root).as_posix()) for path in planned_tables(root, "fetch")
    }
    for record in records_of(root, "fetch"):
        found[record.shard] = found.get(record.shard, Shard())._replace(pairs=record.files[1].path)
    for record in records_of(root, "score"):
        known = found.get(record.shard, Shard())
        found[record.shard] = known._replace(scores=record.files[0].path, rows=record.rows_in)
    return [found[name] for name in sorted(found)]


class Embedded(NamedTuple):
    """Names and embeddings, (M, D), of the evaluation pictures."""

    names: list[str]
    values: Array

    @classmethod
    def of(cls, recipe: Recipe, root: Path) -> "Embedded | None":
        """Let the score step's own panel see the evaluation pictures as it saw the fetched ones; None where the recipe
        keeps no embeddings or has no such pictures."""
        if not (recipe.score.embeddings and recipe.decontaminate.images and records_of(root, "score")):
            return None
        panel = Score(recipe, root).open().panel
        size, nobody = recipe.score.batch_size, np.zeros(recipe.score.batch_size, np.bool_)
        names: list[str] = []
        found: list[Array] = []
        pictures = evaluation_images(recipe)
        while batch := list(islice(pictures, size)):
            needs = dict.fromkeys(recipe.score.use, nobody[: len(batch)])
            texts: dict[str, list[str | None]] = {kind: [None] * len(batch) for kind in ("text", "caption")}
            scored = panel.score([picture for _, picture in batch], texts, needs)
            names += [name for name, _ in batch]
            if scored.embeddings is not None:
                found.append(scored.embeddings)
        return cls(names, np.concatenate(found))

    def write(self, folder: Path) -> None:
        """Write them for workers."""
        with writing(folder / "embedded.npy") as temporary, temporary.open("wb") as file:
            np.save(file, self.values)
        write_json(folder / "embedded.json", {"names": self.names})

    @classmethod
    def read(cls, folder: Path) -> "Embedded | None":
        """Return what `write` wrote, None where it did not."""
        if not (folder / "embedded.json").is_file():
            return None
        return cls(read_json(folder / "embedded.json")["names"], np.load(mapped(folder / "embedded.npy")))


@dataclass(frozen=True)
class RowLists:
    """What rows are held against, shard by shard."""

    recipe: Recipe
    root: Path
    embedded: Embedded | None

    @cached_property
    def digests(self) -> DigestLists:
        """Return the lists and tombstones of digests."""
        return DigestLists.of(exclusions(self.recipe), read_tombstones(self.root))

    @cached_property
    def sha256(self) -> pa.Array:
        """Return the digests of the sha256 of removed pictures."""
        return read_tombstones(self.root).values("sha256")

    @cached_property
    def prompts(self) -> Prompts | None:
        """Return the evaluation prompts."""
        return evaluation_prompts(self.recipe)

    def __bool__(self) -> bool:
        return bool(self.digests or len(self.sha256) or self.embedded or self.prompts is not None)

    def found_in(self, shard: Shard) -> Iterator[pa.Table]:
        """Yield the rows of a shard of which something is found, as FOUND."""
        if shard.pairs and self.digests:
            yield self._by_digest(self.root / shard.pairs)
        if shard.scores and len(self.sha256):
            yield self._by_sha256(self.root / shard.scores)
        if shard.scores and self.embedded is not None:
            yield self._alike(self.root / shard.scores, self.embedded)
        if shard.plan and self.prompts is not None:
            yield self._repeats(self.root / shard.plan, self.prompts)

    def _by_digest(self, path: Path) -> pa.Table:
        """Find the stored pictures that lists and tombstones of digests name: those that came before the list did."""
        known = [kind for kind in self.digests.kinds if kind in read_schema(path).names]
        table = read_table(path, ["key", *known])
        hits = list(self.digests.hits(table)) if known else []
        uids = [bytes.fromhex(table["key"][row].as_py()) for row, _ in hits]
        says = [f"{BY_TOMBSTONE} its {hit.kind}" if hit.list is None else hit.says for _, hit in hits]
        return found_marks(pa.array(uids, pa.binary(16)), "removed", pa.array(says, pa.string()))

    def _by_sha256(self, path: Path) -> pa.Table:
        """Find the pictures that were removed by their sha256, come back under another URL."""
        table = read_table(path, ["uid", "sha256"])
        hexes = pa.array([value.hex() if value else None for value in table["sha256"].to_pylist()], pa.string())
        uids = table["uid"].filter(pc.is_in(digests(hexes), value_set=self.sha256))
        return found_marks(uids, "removed", f"{BY_TOMBSTONE} its sha256")

    def _alike(self, path: Path, embedded: Embedded) -> pa.Table:
        """Find the pictures whose embedding is close to an evaluation picture's."""
        table = read_table(path, ["uid", EMBEDDING])
        table = table.filter(pc.is_valid(table[EMBEDDING]))
        if not table.num_rows:
            return FOUND.empty_table()
        column = table[EMBEDDING].combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        place, cosine = most_alike(values, embedded.values)
        near = np.flatnonzero(cosine >= self.recipe.decontaminate.cosine)
        items = pa.array([embedded.names[one] for one in place[near]], pa.string())
        says = pa.array([f"cosine {one:.3f}" for one in cosine[near]], pa.string())
        return found_matches(table["uid"].take(pa.array(near)), "cosine", items, says)

    def _repeats(self, path: Path, prompts: Prompts) -> pa.Table:
        """Find the rows whose alt text or caption repeats an evaluation prompt."""
        table = read_table(path, ["uid", "text", "top_caption"])
        hits: list[tuple[int, str, Any]] = [
            (row, name, hit)
            for name in ("text", "top_caption")
            for row, text in enumerate(table[name].to_pylist())
            if (hit := prompts.hit(text))
        ]
        uids = table["uid"].take(pa.array([row for row, _, _ in hits], pa.int64()))
        items = pa.array([f"{hit.name} line {hit.line}" for _, _, hit in hits], pa.string())
        says = pa.array([f"{name} has {hit.words!r}" for _, name, hit in hits], pa.string())
        return found_matches(uids, "ngram", items, says)

"""filter / dedup over as many pictures as one process should hold: clustered and marked here."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.dedup import Array, clusters
from filters.survivors import halves
from manifests.files import read_table
from manifests.journal import records_of
from manifests.schema import schema
from manifests.tables import CLUSTERS
from manifests.tombstones import read_tombstones
from pipeline.recipes.schema import Recipe
from pipeline.steps.frequent import frequent_hashes
from pipeline.steps.labels import binary
from pipeline.steps.listed import Embedded, RowLists, shards_of
from pipeline.steps.marks import FOUND, HashList, Marker, Part, hash_lists, tell_placeholders


@dataclass
class AtOnce:
    """The work of dedup in one process: 230 bytes a picture."""

    recipe: Recipe
    root: Path
    lists: list[HashList] = field(default_factory=list)
    sizes: tuple[int, int] = (0, 0)
    """The number of clusters of two and more, and how many pictures the largest has: known behind `tables`."""

    def top(self) -> list[dict[str, Any]]:
        """Return the most frequent pHashes with what stands under each."""
        top, frequent = frequent_hashes(self.root, self.recipe.dedup.placeholder_min)
        self.lists = hash_lists(self.recipe, frequent)
        tell_placeholders(top, self.lists[0])
        return top

    def tables(self) -> Iterator[list[pa.Table]]:
        """Yield clusters, marks and matches of all rows, in order of uid."""
        part, rows = self._clustered(), RowLists(self.recipe, self.root, Embedded.of(self.recipe, self.root))
        found = [one for shard in shards_of(self.root) for one in rows.found_in(shard)]
        marker = Marker(self.lists, read_tombstones(self.root).phashes, self.recipe.decontaminate.action == "drop")
        table = pa.table([binary(part.uids), binary(part.clusters)], schema=CLUSTERS)
        yield [table, *marker.marked(part, pa.concat_tables([FOUND.empty_table(), *found]))]

    def _clustered(self) -> Part:
        tables = [read_table(self.root / r.files[0].path, ["uid", "phash"]) for r in records_of(self.root, "score")]
        table = pa.concat_tables(tables) if tables else schema("uid", "phash").empty_table()
        table = table.filter(pc.is_valid(table["phash"])).sort_by("uid")
        labels, barred = among_removed(table, read_tombstones(self.root).removed_neighbours, self.recipe.dedup.radius)
        sizes = np.bincount(labels)
        self.sizes = int((sizes > 1).sum()), int(sizes.max(initial=0))
        uids = halves(table["uid"])
        return Part(uids, table["phash"].to_numpy().astype(np.uint64), uids[labels], barred)


def among_removed(pictures: pa.Table, removed_neighbours: pa.Table, radius: int) -> tuple[Array, Array]:
    """Cluster pictures as if removed ones were still there; return labels, and which pictures a removed one keeps out.

    Labels are places among the pictures alone: the smallest of each component. Both tables are in order of uid.
    """
    count = pictures.num_rows
    hashes = np.concatenate([table["phash"].to_numpy().astype(np.uint64) for table in (pictures, removed_neighbours)])
    labels = clusters(hashes, radius)
    barring = np.unique(labels[count:][removed_neighbours["bars"].to_numpy().astype(bool)])
    return labels[:count], np.isin(labels[:count], barring)

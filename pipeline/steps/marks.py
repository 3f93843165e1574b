"""Mark the rows that lists and evaluation sets name, and report the most frequent pictures."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.dedup import Array, most_alike, nearest
from filters.digest_lists import DigestLists
from filters.survivors import halves
from filters.tombstones import digests
from manifests.files import read_schema, read_table
from manifests.journal import records_of
from manifests.plans import planned_tables
from manifests.tables import MARKS, MATCHES
from manifests.tombstones import BY_TOMBSTONE, read_tombstones
from pipeline.recipes.lists import (
    Pictures,
    evaluation_images,
    evaluation_pictures,
    evaluation_prompts,
    exclusions,
    placeholders,
)
from pipeline.recipes.schema import Recipe
from pipeline.steps.score import EMBEDDING, Score

TWIN_REMOVED = "its twin was kept and then removed; pipeline remove --promote-duplicates would let it in"


class Marker:
    """Judges pictures, in parts in order of uid, by lists that every part is held against."""

    def __init__(self, recipe: Recipe, root: Path, top: list[dict[str, Any]], frequent: Array) -> None:
        """Read the lists, and look for what needs more than a picture's uid and pHash: a row a hit is held. `top`: the
        most frequent pHashes; `frequent`: those that make a placeholder."""
        self._recipe, self.top = recipe, top
        listed = placeholders(recipe)
        self._stand_ins = Pictures(
            np.concatenate([listed.hashes, frequent]),
            (*listed.names, *(f"pHash {int(value):016x}, one of the most frequent" for value in frequent)),
        )
        for entry in self.top:
            value = np.array([int(entry["phash"], 16)], np.uint64)
            entry["placeholder"] = bool(nearest(value, self._stand_ins.hashes, recipe.dedup.radius)[0][0] >= 0)
        self._removed = [
            (one, Pictures(values, tuple(f"{int(value):016x}" for value in values)))
            for one in exclusions(recipe)
            if one.kind == "phash"
            for values in [one.values.to_numpy(zero_copy_only=False).astype(np.uint64)]
        ]
        self._evaluated = evaluation_pictures(recipe)
        self._tombstones = read_tombstones(root).phashes
        marks = pa.concat_tables([MARKS.empty_table(), *_by_digest(recipe, root), *_by_sha256(root)])
        matches = [MATCHES.empty_table(), *_eval_embeddings(recipe, root), *_eval_prompts(recipe, root)]
        self._others = marks.sort_by("uid"), pa.concat_tables(matches).sort_by("uid")

    def of_part(self, uids: pa.Array, hashes: Array, barred: Array) -> tuple[pa.Table, pa.Table]:
        """Return marks and matches of all rows up to the last of these, in order. `barred`: which of them are twins of
        removed pictures."""
        marks, matches = (self._take(number, uids[-1] if len(uids) else None) for number in (0, 1))
        found = [_marks(uids.filter(pa.array(barred)), "near_duplicate", TWIN_REMOVED), marks]
        same = pc.is_in(pa.array(hashes, pa.uint64()), value_set=self._tombstones)
        alike = pa.array([f"{BY_TOMBSTONE} pHash {int(value):016x}" for value in hashes[same]], pa.string())
        found.append(_marks(uids.filter(same), "removed", alike))
        for one, listed in self._removed:
            own, name, bits = _near(uids, hashes, listed, one.radius)
            found.append(_marks(own, "removed", _text(f"{one.name}: pHash ", name, ", ", bits, " bits apart")))
        own, name, bits = _near(uids, hashes, self._stand_ins, self._recipe.dedup.radius)
        found.append(_marks(own, "placeholder", _text(name, ", ", bits, " bits apart")))
        own, name, bits = _near(uids, hashes, self._evaluated, self._recipe.decontaminate.radius)
        matches = pa.concat_tables([matches, _matches(own, "phash", name, _text(bits, " bits apart"))])
        return self._sorted(found, matches)

    def rest(self) -> tuple[pa.Table, pa.Table]:
        """Return marks and matches of the rows behind the last part."""
        marks, matches = (self._take(number, None, rest=True) for number in (0, 1))
        return self._sorted([marks], matches)

    def _take(self, number: int, last: Any, rest: bool = False) -> pa.Table:
        """Return what was found elsewhere of the rows up to this uid, and forget it."""
        others = self._others[number]
        count = others.num_rows if rest else 0
        if last is not None and others.num_rows:
            uids, end = halves(others["uid"]), halves(pa.array([last.as_py()], pa.binary(16)))[0]
            count = int(((uids[:, 0] < end[0]) | ((uids[:, 0] == end[0]) & (uids[:, 1] <= end[1]))).sum())
        left = others.slice(count)
        self._others = (left, self._others[1]) if number == 0 else (self._others[0], left)
        return others.slice(0, count)

    def _sorted(self, marks: list[pa.Table], matches: pa.Table) -> tuple[pa.Table, pa.Table]:
        if self._recipe.decontaminate.action == "drop":
            detail = _text(matches["by"], " ", matches["item"], ": ", matches["detail"])
            marks = [*marks, _marks(matches["uid"], "in_eval_set", detail)]
        together = pa.concat_tables(marks)
        if together.num_rows:
            together = together.group_by(MARKS.names, use_threads=False).aggregate([]).cast(MARKS)
        return _in_order(together), _in_order(matches)


def _in_order(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in table.schema.names]) if table.num_rows else table


def _text(*parts: Any) -> pa.Array:
    """Return the texts that these parts, columns and words, make row by row."""
    return pc.binary_join_element_wise(*parts, "")


def _marks(uids: Any, reason: str, detail: Any) -> pa.Table:
    details = pa.array([detail] * len(uids), pa.string()) if isinstance(detail, str) else detail
    return pa.table([uids, pa.array([reason] * len(uids), pa.string()), details], schema=MARKS)


def _matches(uids: Any, by: str, item: Any, detail: Any) -> pa.Table:
    return pa.table([uids, pa.array([by] * len(uids), pa.string()), item, detail], schema=MATCHES)


def _near(uids: pa.Array, hashes: Array, listed: Pictures, radius: int) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Return uids, names of the listed and distances, as texts, of the pictures that are near a listed one."""
    if not len(listed.hashes):
        return uids.slice(0, 0), pa.array([], pa.string()), pa.array([], pa.string())
    places, distances = nearest(hashes, listed.hashes, radius)
    near = np.flatnonzero(places >= 0)
    names = pa.array(listed.names, pa.string()).take(pa.array(places[near]))
    return uids.take(pa.array(near)), names, pa.array(distances[near]).cast(pa.string())


def _by_digest(recipe: Recipe, root: Path) -> Iterator[pa.Table]:
    """Yield the stored pictures that lists and tombstones of digests name: those that came before the list did."""
    named = DigestLists.of(exclusions(recipe), read_tombstones(root))
    for record in records_of(root, "fetch") if named else ():
        path = root / record.files[1].path
        known = [kind for kind in named.kinds if kind in read_schema(path).names]
        table = read_table(path, ["key", *known])
        hits = list(named.hits(table)) if known else []
        uids = [bytes.fromhex(table["key"][row].as_py()) for row, _ in hits]
        says = [f"{BY_TOMBSTONE} its {hit.kind}" if hit.list is None else hit.says for _, hit in hits]
        yield _marks(pa.array(uids, pa.binary(16)), "removed", pa.array(says, pa.string()))


def _by_sha256(root: Path) -> Iterator[pa.Table]:
    """Yield the pictures that were removed by their sha256, come back under another URL."""
    wanted = read_tombstones(root).values("sha256")
    for record in records_of(root, "score") if len(wanted) else ():
        table = read_table(root / record.files[0].path, ["uid", "sha256"])
        hexes = pa.array([value.hex() if value else None for value in table["sha256"].to_pylist()], pa.string())
        uids = table["uid"].filter(pc.is_in(digests(hexes), value_set=wanted))
        yield _marks(uids, "removed", f"{BY_TOMBSTONE} its sha256")


def _eval_embeddings(recipe: Recipe, root: Path) -> Iterator[pa.Table]:
    """Yield the matches of embeddings, where the recipe keeps them: CLIP sees the evaluation pictures as it saw the
    fetched ones."""
    records = records_of(root, "score")
    if not recipe.score.embeddings or not records or not recipe.decontaminate.images:
        return
    names, listed = _embedded(recipe, root)
    for record in records:
        table = read_table(root / record.files[0].path, ["uid", EMBEDDING])
        table = table.filter(pc.is_valid(table[EMBEDDING]))
        if not table.num_rows:
            continue
        column = table[EMBEDDING].combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
        place, cosine = most_alike(values, listed)
        near = np.flatnonzero(cosine >= recipe.decontaminate.cosine)
        items = pa.array([names[one] for one in place[near]], pa.string())
        says = pa.array([f"cosine {one:.3f}" for one in cosine[near]], pa.string())
        yield _matches(table["uid"].take(pa.array(near)), "cosine", items, says)


def _embedded(recipe: Recipe, root: Path) -> tuple[list[str], Array]:
    """Return the names and embeddings (M, D) of the evaluation pictures, by the score step's own panel."""
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
    return names, np.concatenate(found)


def _eval_prompts(recipe: Recipe, root: Path) -> Iterator[pa.Table]:
    """Yield the matches of alt texts and captions of all fetched rows."""
    prompts = evaluation_prompts(recipe)
    if prompts is None:
        return
    for path in planned_tables(root, "fetch"):
        table = read_table(path, ["uid", "text", "top_caption"])
        hits = [
            (row, name, hit)
            for name in ("text", "top_caption")
            for row, text in enumerate(table[name].to_pylist())
            if (hit := prompts.hit(text))
        ]
        uids = table["uid"].take(pa.array([row for row, _, _ in hits], pa.int64()))
        items = pa.array([f"{hit.name} line {hit.line}" for _, _, hit in hits], pa.string())
        says = pa.array([f"{name} has {hit.words!r}" for _, name, hit in hits], pa.string())
        yield _matches(uids, "ngram", items, says)

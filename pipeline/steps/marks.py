"""Mark the rows that lists and evaluation sets name, and report the most frequent pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.dedup import Array, most_alike, nearest
from filters.digest_lists import DigestLists
from filters.fetch.url import identity
from filters.tombstones import digests
from manifests.files import read_schema, read_table
from manifests.journal import records_of
from manifests.plans import planned_tables
from manifests.query import FILES, batches, connect, files_sql
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

TOP = 100
"""Hashes in the report of the most frequent ones."""
TWIN_REMOVED = "its twin was kept and then removed; pipeline remove --promote-duplicates would let it in"
Mark = tuple[bytes, str, str]


@dataclass(frozen=True)
class Marked:
    """What the dedup step found beside clusters."""

    marks: pa.Table
    matches: pa.Table
    top: list[dict[str, Any]]


def mark_rows(recipe: Recipe, root: Path, pictures: pa.Table, barred: pa.Array) -> Marked:
    """Return the marks of the decoded pictures, a table of (uid, phash) in order of uid; `barred`: uids of removed
    pictures' twins."""
    uids, hashes = pictures["uid"].combine_chunks(), pictures["phash"].to_numpy().astype(np.uint64)
    top, frequent = frequent_hashes(root, recipe.dedup.placeholder_min)
    listed = placeholders(recipe)
    stand_ins = Pictures(
        np.concatenate([listed.hashes, frequent]),
        (*listed.names, *(f"pHash {int(value):016x}, one of the most frequent" for value in frequent)),
    )
    marks = [*_removed(recipe, uids, hashes), *_by_digest(recipe, root), *_by_tombstone(root, pictures)]
    marks += [(uid, "near_duplicate", TWIN_REMOVED) for uid in barred.to_pylist()]
    marks += [
        (uid, "placeholder", f"{name}, {bits} bits apart")
        for uid, name, bits in _near(uids, hashes, stand_ins, recipe.dedup.radius)
    ]
    matches = [*_eval_pictures(recipe, uids, hashes), *_eval_embeddings(recipe, root), *_eval_prompts(recipe, root)]
    if recipe.decontaminate.action == "drop":
        marks += [(uid, "in_eval_set", f"{by} {item}: {detail}") for uid, by, item, detail in matches]
    for entry in top:
        entry["placeholder"] = bool(
            nearest(np.array([int(entry["phash"], 16)], np.uint64), stand_ins.hashes, recipe.dedup.radius)[0][0] >= 0
        )
    return Marked(_table(sorted(set(marks)), MARKS), _table(sorted(matches), MATCHES), top)


def _table(rows: list[Any], wanted: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(wanted)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, wanted, strict=True)], schema=wanted
    )


def _near(uids: pa.Array, hashes: Array, listed: Pictures, radius: int) -> Iterator[tuple[bytes, str, int]]:
    """Yield (uid, name, distance) of the pictures that are near a listed one."""
    if not len(listed.hashes):
        return
    places, distances = nearest(hashes, listed.hashes, radius)
    for row in np.flatnonzero(places >= 0).tolist():
        yield uids[row].as_py(), listed.names[places[row]], int(distances[row])


def _removed(recipe: Recipe, uids: pa.Array, hashes: Array) -> Iterator[Mark]:
    for one in exclusions(recipe):
        if one.kind == "phash":
            values = one.values.to_numpy(zero_copy_only=False).astype(np.uint64)
            listed = Pictures(values, tuple(f"{int(value):016x}" for value in values))
            for uid, name, bits in _near(uids, hashes, listed, one.radius):
                yield uid, "removed", f"{one.name}: pHash {name}, {bits} bits apart"


def _by_digest(recipe: Recipe, root: Path) -> Iterator[Mark]:
    """Yield the stored pictures that lists and tombstones of digests name: those that came before the list did."""
    named = DigestLists.of(exclusions(recipe), read_tombstones(root))
    for record in records_of(root, "fetch") if named else ():
        path = root / record.files[1].path
        known = [kind for kind in named.kinds if kind in read_schema(path).names]
        table = read_table(path, ["key", *known])
        for row, hit in named.hits(table) if known else ():
            by = f"{BY_TOMBSTONE} its {hit.kind}" if hit.list is None else hit.says
            yield bytes.fromhex(table["key"][row].as_py()), "removed", by


def _by_tombstone(root: Path, pictures: pa.Table) -> Iterator[Mark]:
    """Yield the pictures that were removed by their sha256 or pHash, come back under another URL."""
    tombstones = read_tombstones(root)
    same = pictures.filter(pc.is_in(pictures["phash"], value_set=tombstones.phashes))
    for row in same.to_pylist():
        yield row["uid"], "removed", f"{BY_TOMBSTONE} pHash {row['phash']:016x}"
    wanted = tombstones.values("sha256")
    for record in records_of(root, "score") if len(wanted) else ():
        table = read_table(root / record.files[0].path, ["uid", "sha256"])
        hexes = pa.array([value.hex() if value else None for value in table["sha256"].to_pylist()], pa.string())
        for uid in table["uid"].filter(pc.is_in(digests(hexes), value_set=wanted)).to_pylist():
            yield uid, "removed", f"{BY_TOMBSTONE} its sha256"


def _eval_pictures(recipe: Recipe, uids: pa.Array, hashes: Array) -> Iterator[tuple[bytes, str, str, str]]:
    listed = evaluation_pictures(recipe)
    for uid, name, bits in _near(uids, hashes, listed, recipe.decontaminate.radius):
        yield uid, "phash", name, f"{bits} bits apart"


def _eval_embeddings(recipe: Recipe, root: Path) -> Iterator[tuple[bytes, str, str, str]]:
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
        for row in np.flatnonzero(cosine >= recipe.decontaminate.cosine).tolist():
            yield table["uid"][row].as_py(), "cosine", names[place[row]], f"cosine {cosine[row]:.3f}"


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


def _eval_prompts(recipe: Recipe, root: Path) -> Iterator[tuple[bytes, str, str, str]]:
    """Yield the matches of alt texts and captions of all fetched rows."""
    prompts = evaluation_prompts(recipe)
    plans = planned_tables(root, "fetch")
    if prompts is None or not plans:
        return
    with connect(root) as connection:
        columns = (
            (name, batch["uid"].to_pylist(), batch[name].to_pylist())
            for some in batches(plans, FILES)
            for batch in connection.execute(f"SELECT uid, text, top_caption FROM {files_sql(some)}").to_arrow_reader(
                65_536
            )
            for name in ("text", "top_caption")
        )
        for name, uid, text in ((name, *row) for name, uids, texts in columns for row in zip(uids, texts, strict=True)):
            hit = prompts.hit(text)
            if hit:
                yield uid, "ngram", f"{hit.name} line {hit.line}", f"{name} has {hit.words!r}"


def frequent_hashes(root: Path, least: int) -> tuple[list[dict[str, Any]], Array]:
    """Return the most frequent pHashes with what stands under each, and those that make a placeholder.

    A placeholder is one picture under `least` different URLs and as many different texts, and more; 0 makes none.
    Spellings of one URL are one.
    """
    scores = [root / record.files[0].path for record in records_of(root, "score")]
    plans = planned_tables(root, "fetch")
    if not scores or not plans:
        return [], np.zeros(0, np.uint64)
    with connect(root) as connection:
        connection.execute(f"""
            CREATE TABLE frequent AS
            WITH s AS (SELECT uid, phash FROM {files_sql(scores)} WHERE phash IS NOT NULL),
                 often AS (SELECT phash FROM s GROUP BY phash HAVING count(*) > 1)
            SELECT phash, count(*) AS pictures, count(DISTINCT url) AS urls, count(DISTINCT text) AS texts,
                   count(DISTINCT lower(regexp_extract(url, '^[^:]+://(?:[^/?#@]*@)?([^/?#:]*)', 1))) AS hosts,
                   lower(hex(min(uid))) AS example
            FROM s JOIN (SELECT uid, url, text FROM {files_sql(plans)}) p USING (uid) WHERE phash IN (SELECT phash
            FROM often)
            GROUP BY phash""")
        _count_identities(connection, files_sql(scores), files_sql(plans), least)
        columns = "printf('%016x', phash) AS phash, pictures, urls, hosts, texts, example"
        top = connection.execute(
            f"SELECT {columns} FROM frequent f ORDER BY f.pictures DESC, f.phash LIMIT {TOP}"
        ).to_arrow_table()
        query = (
            f"SELECT phash FROM frequent WHERE {int(least)} > 0 AND urls >= {int(least)} AND texts >= {int(least)}"
            " ORDER BY phash"
        )
        found = [value for (value,) in connection.execute(query).fetchall()]
    return top.to_pylist(), np.array(found, np.uint64)


def _count_identities(connection: Any, scores: str, plans: str, least: int) -> None:
    """Put the number of URLs, spellings of one counted once, in the place of `frequent.urls`, for the hashes that are
    shown or that may make a placeholder: there are never more URLs than spellings."""
    connection.execute("CREATE TABLE identities (phash UBIGINT, url VARCHAR)")
    query = f"""
        WITH asked AS (
            (SELECT phash FROM frequent ORDER BY pictures DESC, phash LIMIT {TOP}) UNION
            (SELECT phash FROM frequent WHERE {int(least)} > 0 AND urls >= {int(least)} AND texts >= {int(least)}))
        SELECT DISTINCT phash, url FROM {scores} SEMI JOIN asked USING (phash) JOIN {plans} p USING (uid)"""
    for batch in connection.cursor().execute(query).to_arrow_reader(10_000):
        urls = pa.array([identity(url) for url in batch["url"].to_pylist()], pa.string())
        connection.register("spelled", pa.table({"phash": batch["phash"], "url": urls}))
        connection.execute("INSERT INTO identities SELECT phash, url FROM spelled")
    connection.execute("""
        UPDATE frequent SET urls = i.urls FROM
            (SELECT phash, count(DISTINCT url) AS urls FROM identities GROUP BY phash) i
        WHERE frequent.phash = i.phash""")

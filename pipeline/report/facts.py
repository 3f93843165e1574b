"""Read what a run folder holds, whatever stage it has reached, into the facts and the few pictures that a report
shows."""

import contextlib
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from manifests.files import FormatError, read_json
from manifests.shards import ShardError
from manifests.stored_pictures import stored_pictures
from manifests.weights import WeightsFile
from pipeline.analysis.forecast import beside
from pipeline.evaluation.ground_truth import joined

STAND_IN = "stand-in weights"
"""How every output names numbers and words of random weights."""
STEPS = {
    "input": "address and text are usable",
    "fetch": "the picture arrived",
    "image": "it is a sound picture",
    "rules": "it passes the rules",
    "set": "it is the first of its kind",
}
TILES = 40

ROWS = 50_000
"""Pictures and examples come from the first files with about this many rows, so that a report of a huge run stays small
and quick."""
PER_REASON = 5
PER_TIER = 20
GROUPS = 8
PER_GROUP = 4
NO_SCORES = frozenset({"width_origin", "height_origin", "language_origin", "language_score_origin"})
SIDE = 200
"""Long side of a shown picture, in pixels."""
UNSAFE = {"punsafe": 0.5, "opennsfw": 0.5}
"""Pictures that score above these, or that rule `nsfw` dropped, are not shown: a report gets passed around."""
CURVE_POINTS = 400
PICTURE_BYTES = 600_000
WIDEST = 1600


@dataclass(frozen=True)
class Example:
    """A row that the report shows; `jpeg` is empty where its picture never came. `scores`: column -> (value,
    origin)."""

    uid: str
    text: str
    url: str
    fate: str
    reason: str
    tiers: tuple[str, ...]
    scores: dict[str, tuple[float, str]]
    jpeg: bytes = b""
    recaption: str = ""


@dataclass
class Facts:
    """All that the report says of one run. Empty parts are stages that have not run."""

    name: str
    rows_in: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    tiers: dict[str, int] = field(default_factory=dict)
    weights: list[WeightsFile] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    losses: list[str] = field(default_factory=list)
    kept_shots: dict[str, list[Example]] = field(default_factory=dict)
    dropped_shots: dict[str, list[Example]] = field(default_factory=dict)
    groups: list[list[Example]] = field(default_factory=list)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    pictures: list[tuple[str, bytes]] = field(default_factory=list)
    memorised: dict[str, dict[str, Any]] = field(default_factory=dict)
    truth: list[dict[str, Any]] = field(default_factory=list)
    stand_in_captions: bool = False
    predicted: list[tuple[str, str, str]] = field(default_factory=list)


def gather(root: Path, truth: Path | None = None) -> Facts:
    """Read the run folder `root`, and the demo's truth table where one is given. Missing parts stay empty."""
    facts = Facts("/".join(root.resolve().parts[-2:]))
    _read_manifests(root, facts)
    ledgers = sorted((root / "ledger" / "final").glob("*.parquet"))
    if ledgers:
        _read_ledger(root, ledgers, facts)
    if ledgers and truth is not None and truth.is_file():
        facts.truth = joined(pa.concat_tables(pq.read_table(path) for path in ledgers), pq.read_table(truth))
        _add_texts(facts)
    _read_training(root, facts)
    if facts.rows_in:
        facts.predicted = beside(root, facts.rows_in, facts.kept, facts.dropped, facts.tiers)
    return facts


def _add_texts(facts: Facts) -> None:
    """Give rows whose picture never came the text that the truth table has of them: the ledger keeps none of dropped
    rows."""
    texts = {row["uid"].hex(): row["text"] or "" for row in facts.truth if row["uid"]}
    for shots in facts.dropped_shots.values():
        shots[:] = [replace(shot, text=shot.text or texts.get(shot.uid, "")) for shot in shots]


def _read_manifests(root: Path, facts: Facts) -> None:
    for path in sorted((root / "manifests").glob("*.json")):
        with contextlib.suppress(OSError, FormatError):
            _read_manifest(path.stem, read_json(path), facts)


def _read_manifest(stage: str, manifest: dict[str, Any], facts: Facts) -> None:
    if "rows_in" not in manifest:
        return
    facts.digests[stage] = str(manifest.get("digest", ""))
    used = [
        WeightsFile(entry["name"], entry["sha256"], bool(entry["stand_in"])) for entry in manifest.get("weights", [])
    ]
    facts.weights += [one for one in used if one not in facts.weights]
    if stage == "caption":
        facts.stand_in_captions = any(one.stand_in for one in used)
    if stage == "filter":
        facts.rows_in, facts.kept = manifest["rows_in"], manifest["kept"]
        facts.dropped, facts.tiers = dict(manifest["dropped"]), dict(manifest.get("tiers", {}))
        facts.losses = [" ".join(str(value) for value in loss.values()) for loss in manifest.get("losses", [])]


def _read_ledger(root: Path, ledgers: Sequence[Path], facts: Facts) -> None:
    """Choose rows to show by a hash of their uid, then read their pictures out of the first shards."""
    shards = [path.with_suffix(".tar") for path in _first(sorted((root / "pairs").glob("*.parquet")))]
    with duckdb.connect() as connection:
        connection.register("here", pa.table({"uid": pa.array(_uids(shards), pa.binary(16))}))
        connection.execute("CREATE VIEW final AS SELECT * FROM read_parquet(?)".replace("?", _sql_list(ledgers)))
        if not facts.rows_in:
            _count(connection, facts)
        kept = _kept_shots(connection)
        facts.kept_shots = {
            tier: kept[tier] for tier in [*facts.tiers, *sorted(set(kept) - set(facts.tiers))] if tier in kept
        }
        facts.dropped_shots = _dropped_shots(connection, _first(ledgers))
        clusters = sorted((root / "dedup").glob("*.parquet"))
        facts.groups = _groups(connection, clusters) if clusters else []
        captions = sorted((root / "captions").rglob("*.parquet"))
        written = (
            _recaptions(connection, captions, [shot for shots in facts.kept_shots.values() for shot in shots])
            if captions
            else {}
        )
    _fill(facts, shards, written)


def _first(paths: Sequence[Path]) -> list[Path]:
    """Return the first of these Parquet files that hold about ROWS rows, at least one."""
    chosen: list[Path] = []
    rows = 0
    for path in paths:
        if rows >= ROWS:
            break
        chosen.append(path)
        rows += pq.read_metadata(path).num_rows
    return chosen


def _sql_list(paths: Iterable[Path]) -> str:
    return "[" + ", ".join("'" + str(path).replace("'", "''") + "'" for path in paths) + "]"


def _uids(shards: Sequence[Path]) -> list[bytes]:
    """Return the uids of the pictures in these shards, from the tables beside them."""
    found: list[bytes] = []
    for shard in shards:
        with contextlib.suppress(OSError, pa.ArrowInvalid):
            keys = pq.read_table(shard.with_suffix(".parquet"), columns=["key"])["key"].to_pylist()
            found += [bytes.fromhex(key) for key in keys if key and len(key) == 32]
    return found


def _count(connection: duckdb.DuckDBPyConnection, facts: Facts) -> None:
    """Count the ledger itself where no manifest stands yet."""
    counts = dict(
        connection.execute("SELECT coalesce(reason, ''), count(*) FROM final GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
    )
    facts.kept = counts.pop("", 0)
    facts.dropped, facts.rows_in = counts, facts.kept + sum(counts.values())
    facts.tiers = dict(
        connection.execute(
            "SELECT tier, count(*) FROM (SELECT unnest(tiers) AS tier FROM final) GROUP BY 1 ORDER BY 1"
        ).fetchall()
    )


def _kept_shots(connection: duckdb.DuckDBPyConnection) -> dict[str, list[Example]]:
    query = f"""
        SELECT * FROM (SELECT *, unnest(tiers) AS tier FROM final WHERE fate = 'kept' AND uid IN (SELECT uid FROM here))
        QUALIFY row_number() OVER (PARTITION BY tier ORDER BY md5(hex(uid))) <= {PER_TIER}
        ORDER BY tier, md5(hex(uid))"""
    shots: dict[str, list[Example]] = defaultdict(list)
    for row in connection.execute(query).to_arrow_table().to_pylist():
        shots[row["tier"]].append(_shot(row))
    return dict(shots)


def _dropped_shots(connection: duckdb.DuckDBPyConnection, ledgers: Sequence[Path]) -> dict[str, list[Example]]:
    """Return a few rows of each reason, those with a picture first."""
    order = "uid NOT IN (SELECT uid FROM here), md5(hex(uid)), source_row"
    query = f"""
        SELECT * FROM read_parquet({_sql_list(ledgers)}) WHERE fate = 'dropped'
        QUALIFY row_number() OVER (PARTITION BY reason ORDER BY {order}) <= {PER_REASON} ORDER BY reason, {order}"""
    shots: dict[str, list[Example]] = defaultdict(list)
    for row in connection.execute(query).to_arrow_table().to_pylist():
        shots[row["reason"]].append(_shot(row))
    return dict(shots)


def _groups(connection: duckdb.DuckDBPyConnection, clusters: Sequence[Path]) -> list[list[Example]]:
    """Return a few clusters of near duplicates, the survivor first."""
    query = f"""
        WITH members AS (
            SELECT dedup.cluster AS family, final.* FROM read_parquet({_sql_list(clusters)}) AS dedup
            JOIN final USING (uid)
            WHERE uid IN (SELECT uid FROM here) AND reason IS DISTINCT FROM 'exact_duplicate'
            QUALIFY count(*) OVER (PARTITION BY family) > 1
            AND bool_or(reason = 'near_duplicate') OVER (PARTITION BY family)
        ), chosen AS (SELECT family FROM members GROUP BY family
        ORDER BY count(*) > 2 DESC, md5(family::VARCHAR) LIMIT {GROUPS})
        SELECT * FROM members WHERE family IN (SELECT family FROM chosen) ORDER BY family, fate DESC, md5(hex(uid))"""
    groups: dict[Any, list[Example]] = defaultdict(list)
    for row in connection.execute(query).to_arrow_table().to_pylist():
        if len(groups[row["family"]]) < PER_GROUP:
            groups[row["family"]].append(_shot(row))
    return list(groups.values())


def _recaptions(
    connection: duckdb.DuckDBPyConnection, captions: Sequence[Path], shots: Sequence[Example]
) -> dict[str, str]:
    connection.register(
        "shown", pa.table({"uid": pa.array([bytes.fromhex(shot.uid) for shot in shots], pa.binary(16))})
    )
    query = (
        f"SELECT DISTINCT ON (uid) uid, caption FROM read_parquet({_sql_list(captions)}) WHERE uid IN (SELECT uid FROM"
        " shown)"
    )
    with contextlib.suppress(duckdb.Error):
        return {bytes(uid).hex(): str(caption) for uid, caption in connection.execute(query).fetchall()}
    return {}


def _shot(row: dict[str, Any]) -> Example:
    columns = [name.removesuffix("_origin") for name in row if name.endswith("_origin") and name not in NO_SCORES]
    scores = {
        name: (float(row[name]), str(row[f"{name}_origin"] or ""))
        for name in columns
        if isinstance(row.get(name), float)
    }
    uid = bytes(row["uid"]).hex() if row["uid"] else ""
    return Example(
        uid,
        row.get("text") or "",
        row["url"] or "",
        row["fate"],
        row["reason"] or "",
        tuple(row["tiers"] or ()),
        scores,
    )


def _fill(facts: Facts, shards: Sequence[Path], recaptions: dict[str, str]) -> None:
    """Give every chosen row its picture and, where the ledger has no text, the text of its pair."""
    places = [*facts.kept_shots.values(), *facts.dropped_shots.values(), *facts.groups]
    wanted = {shot.uid for shots in places for shot in shots}
    found: dict[str, tuple[bytes, str]] = {}
    for key, sample in _samples(shards, wanted):
        if "jpg" in sample:
            found[key] = (shrunk(sample["jpg"], SIDE), sample.get("txt", b"").decode("utf-8", "replace"))
        if len(found) == len(wanted):
            break
    said = "recaptioned with stand-in weights" if facts.stand_in_captions else "recaptioned"
    told = {uid: f"{said}: {caption[:160]}" for uid, caption in recaptions.items()}
    for shots in places:
        for number, shot in enumerate(shots):
            jpeg, text = found.get(shot.uid, (b"", ""))
            jpeg = b"" if _is_unsafe(shot) else jpeg
            shots[number] = replace(shot, jpeg=jpeg, text=shot.text or text, recaption=told.get(shot.uid, ""))


def _is_unsafe(shot: Example) -> bool:
    return shot.reason == "nsfw" or any(shot.scores.get(name, (0.0, ""))[0] > most for name, most in UNSAFE.items())


def _samples(shards: Sequence[Path], keys: set[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    for shard in shards:
        with contextlib.suppress(ShardError, OSError):
            yield from stored_pictures(shard, keys, ("jpg", "txt"))


def shrunk(data: bytes, side: int) -> bytes:
    """Return a picture as a JPEG of at most `side` pixels on its long side."""
    with Image.open(io.BytesIO(data)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    small.save(out, "JPEG", quality=84)
    return out.getvalue()


def _read_training(root: Path, facts: Facts) -> None:
    for path in sorted((root / "train").rglob("metrics.jsonl")):
        points = list(_points(path))
        if points:
            facts.curves[path.parent.name] = points[:: max(1, len(points) // CURVE_POINTS)]
    for path in sorted((root / "train").rglob("memorised.json")):
        with contextlib.suppress(OSError, ValueError):
            facts.memorised[path.parent.name] = json.loads(path.read_bytes())
    wanted = [*sorted((root / "codes").rglob("*.png")), *sorted((root / "train").rglob("memorised.png"))]
    for path in wanted[:6]:
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            facts.pictures.append(
                (path.relative_to(root).as_posix(), data if len(data) < PICTURE_BYTES else shrunk(data, WIDEST))
            )


def _points(path: Path) -> Iterator[tuple[float, float]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                yield float(entry["step"]), float(entry["loss"])


def mosaic_shots(facts: Facts) -> list[Example]:
    """Return kept pictures of all tiers in turn, each once."""
    places = list(facts.kept_shots.values())
    turns = [shots[turn] for turn in range(max(map(len, places), default=0)) for shots in places if turn < len(shots)]
    unique = {shot.uid: shot for shot in turns if shot.jpeg}
    return list(unique.values())[:TILES]

"""Write a run's codes as LlamaGen's own scripts read them: jsonl, one .npy per picture, T5 features, pictures; or
ImageNet's folders."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from manifests.checksums import sha256_file
from manifests.files import read_field, write_json
from manifests.journal import ShardRecord, records_of
from manifests.layout import PLAN
from manifests.plans import plan_folder
from manifests.query import batches, connect
from manifests.shards import Index, ShardError, index_path
from manifests.store import is_remote, local_copy
from manifests.stored_pictures import stored_keys, stored_pictures
from pipeline.llamagen.output_folder import put, replacing
from pipeline.llamagen.source import TEXT_SOURCES
from pipeline.recipes.schema import RecipeError
from pipeline.training.text_features import TextFeatures
from tokenize_shards.samples import (
    CodeSample,
    Features,
    LoaderError,
    Shard,
    check_shards,
    find_shards,
    indexed_samples,
    npy_bytes,
)

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

IMAGES = "images"
AS_JSON = json.JSONEncoder(ensure_ascii=False).encode
NOTE = "export.json"
"""What was written, and of what. A folder that has it may be replaced by another export."""
T5_BATCH = 64
TARS = 16
"""Shards of pairs whose pictures are looked for at a time: their keys are in memory, those of the run are not."""
COPIED = 2
"""The same of a run in a store, where they are copied first."""
T5_FOLDERS = {"t5": 0, "t5_short": 2}
"""Which of a line's texts a folder's features are of."""


@dataclass(frozen=True)
class ExportOptions:
    """What to export and where to. `text`: a T5 for features that the shards do not hold; none: only stored ones are
    written."""

    root: Path
    tier: str
    to: Path
    pictures: bool = True
    text: TextFeatures | None = None


@dataclass
class Exported:
    """What was written, and what was not there to write or has no place in the layout."""

    lines: int = 0
    pictures: int = 0
    features: int = 0
    without_llava: int = 0
    without_text: int = 0
    without_features: int = 0
    crops_left: int = 0


def export_llamagen(options: ExportOptions) -> Exported:
    """Write DIR/jsonl/STEM.jsonl, DIR/codes/STEM/LINE.npy, DIR/t5/STEM/LINE.npy, DIR/t5_short/STEM/LINE.npy and
    DIR/images/.

    STEM is the code shard's name and LINE the line's number from 0: LlamaGen knows a picture by nothing else
    (dataset/t2i.py). `text` is [blip, llava, llava_first] and what other captions there are: the input's caption (its
    alt text where it has none), the captioner's, its short one; what is missing is filled with the first. Codes are
    int64 (1, N), of the first crop; features float32 (1, tokens, width), of text[0] and text[2]. Codes with labels
    become ImageNet's folders instead: DIR/imagenetSIZE_codes/I.npy, int64 (1, crops, N), and _labels/I.npy, I in the
    order of the shards. DIR is there whole or not at all; an export that stood there goes once this one is whole.
    Raises RecipeError where the run has not what is asked for, LoaderError or ShardError for damaged or missing shards.
    """
    shards = find_shards(options.root / "codes", options.tier)
    check_whole(options, shards)
    done = Exported()
    with replacing(options.to, NOTE) as folder:
        if next(indexed_samples(next(shard for shard in shards if shard.samples))).label is not None:
            _export_labelled(folder, shards, done)
        else:
            done.pictures = _write_pictures(options.root, folder, shards) if options.pictures else 0
            for shard in shards:
                _export_shard(options, folder, shard, done)
        counts = ("lines", "pictures", "features", "without_llava", "without_text", "without_features", "crops_left")
        write_json(
            folder / NOTE,
            {"layout": "llamagen", "tier": options.tier, **{name: getattr(done, name) for name in counts}},
        )
    return done


def stem_of(shard: Shard) -> str:
    """Return what LlamaGen takes of a file's name: up to the first dot."""
    return shard.path.name.partition(".")[0]


def check_whole(options: ExportOptions, shards: Sequence[Shard]) -> None:
    """Raise LoaderError for a tier with damaged or missing shards, RecipeError for two names that LlamaGen would take
    for one."""
    twice = [stem for stem, count in Counter(map(stem_of, shards)).items() if count > 1]
    if twice:
        raise RecipeError(
            f"export: several shards are called {twice[0]!r} up to their first dot, which is all that LlamaGen reads of"
            " a name"
        )
    folder, expected = options.root / "codes" / options.tier, _expected(options)
    ends = f"see pipeline verify {options.root}, then pipeline repair or pipeline run --stage pretokenize"
    if missing := sorted(set(expected) - {shard.path.name for shard in shards}):
        raise LoaderError(f"export: {len(missing)} shards are not in {folder}, such as {missing[0]}: {ends}")
    if other := [shard.path.name for shard in shards if expected.get(shard.path.name) not in (None, "", shard.sha256)]:
        raise LoaderError(f"export: {folder / other[0]} is not the shard that the run's journal names: {ends}")
    check_shards(shards, "sha256")


def _expected(options: ExportOptions) -> dict[str, str]:
    """Return name -> sha256 of the shards that must be there: planned, recorded (these alone with a sha256), indexed,
    or left out."""
    folder = options.root / "codes" / options.tier
    indexed = [path.name.removesuffix(".index.json") for path in folder.glob("*.index.json")]
    plan = plan_folder(options.root, "pack") / PLAN
    listed = read_field(plan, "files", dict) if plan.is_file() else {}
    planned = [name.removesuffix(".parquet").rpartition("-") for name in listed]
    stems = indexed + [number for tier, _, number in planned if tier == options.tier]
    numbers = [stem for stem in stems if stem.isdigit()]
    last = max(numbers, key=int, default="0")
    stems += [f"{number:0{len(last)}d}" for number in range(int(last))]
    files = [file for record in records_of(options.root, "pack") for file in record.files]
    recorded = {Path(file.path).name: file.sha256 for file in files if (options.root / file.path).parent == folder}
    return {
        **{f"{stem}.tar": "" for stem in stems},
        **{name: sha256 for name, sha256 in recorded.items() if name.endswith(".tar")},
    }


def _export_shard(options: ExportOptions, folder: Path, shard: Shard, done: Exported) -> None:
    stem = stem_of(shard)
    lines, spoken = list[str](), list[list[str]]()
    pictures, codes = f"{options.to.absolute() / IMAGES / stem}/", f"{folder / 'codes' / stem}/"
    for number, sample in enumerate(indexed_samples(shard)):
        texts, sources = texts_of(sample.captions)
        done.without_llava += "llava" not in sources[1]
        done.without_text += not any(texts)
        done.crops_left += len(sample.codes_KN) - 1
        line = {"image_path": f"{pictures}{sample.uid}.jpg", "text": texts, TEXT_SOURCES: sources}
        lines.append(AS_JSON(line) + "\n")
        put(f"{codes}{number}.npy", npy_bytes(sample.codes_KN[:1].astype(np.int64)))
        if options.text:
            spoken.append(texts)
        else:
            _stored_features(folder, f"{stem}/{number}.npy", sample, sources, done)
    if options.text:
        _computed_features(options.text, folder, stem, spoken, done)
    put(folder / "jsonl" / f"{stem}.jsonl", "".join(lines).encode())
    done.lines += len(lines)


def texts_of(captions: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """Return (texts, their sources) of a line: LlamaGen's three, then every other caption, so that none is lost."""
    texts, sources = captions_by_position([{"source": source, "text": text} for source, text in captions])
    more = [(source, text) for source, text in captions if source not in sources]
    return texts + [text for _, text in more], sources + [source for source, _ in more]


def captions_by_position(captions: Sequence[dict[str, str]]) -> tuple[list[str], list[str]]:
    """Return LlamaGen's three texts [blip, llava, llava_first] and which source each came from; a gap takes the first
    there is."""
    by_source = {caption["source"]: caption["text"] for caption in captions}
    captioners = [
        name for name in by_source if name not in ("alt", "top_caption") and not name.endswith(("_short", "_fit"))
    ]
    short = [f"{name}_short" for name in captioners]
    positions: list[Sequence[str]] = [("top_caption", "alt"), captioners, short]
    first = next(iter(by_source), "")
    sources = [next((source for source in choices if source in by_source), first) for choices in positions]
    return [by_source.get(source, "") for source in sources], sources


def _write_features(path: Path | str, features: Features, done: Exported) -> None:
    put(path, npy_bytes(features[None].astype(np.float32)))
    done.features += 1


def _stored_features(folder: Path, name: str, sample: CodeSample, sources: list[str], done: Exported) -> None:
    """Write the features that a sample holds, where they are those of text[0] or text[2]."""
    of = sample.features_of if sample.features is not None else None
    for kind, position in T5_FOLDERS.items():
        if sample.features is not None and of == sources[position]:
            _write_features(f"{folder}/{kind}/{name}", sample.features, done)
    done.without_features += of != sources[0]


def _computed_features(text: TextFeatures, folder: Path, stem: str, texts: list[list[str]], done: Exported) -> None:
    for name, position in T5_FOLDERS.items():
        for start in range(0, len(texts), T5_BATCH):
            computed = text.features([line[position] for line in texts[start : start + T5_BATCH]])
            for number, features in enumerate(computed, start):
                _write_features(folder / name / stem / f"{number}.npy", features, done)


def _export_labelled(folder: Path, shards: Sequence[Shard], done: Exported) -> None:
    """Write codes and labels as LlamaGen's extract_codes_c2i.py does."""
    for sample in (sample for shard in shards for sample in indexed_samples(shard)):
        if sample.label is None:
            raise RecipeError(
                f"export: sample {sample.uid} has no label, the first of all has one: LlamaGen's layouts hold one kind"
            )
        name = f"imagenet{sample.size}"
        put(folder / f"{name}_codes" / f"{done.lines}.npy", npy_bytes(sample.codes_KN[None].astype(np.int64)))
        put(folder / f"{name}_labels" / f"{done.lines}.npy", npy_bytes(np.array([sample.label], np.int64)))
        done.lines += 1


def _write_pictures(root: Path, folder: Path, shards: Sequence[Shard]) -> int:
    """Write the stored JPEGs of the shards' samples; return how many. Raises RecipeError where some are not there,
    ShardError."""
    stems = [f"{folder / IMAGES / stem_of(shard)}/" for shard in shards]
    records, count = records_of(root, "fetch"), 0
    with connect(root) as connection:  # who is packed where is spilled, where there are many
        connection.execute("CREATE TEMP TABLE packed (key VARCHAR, shard UINTEGER)")
        for number, shard in enumerate(shards):
            keys = dict.fromkeys(member.key for member in Index.read(index_path(shard.path)).members)
            _insert(connection, pa.table({"key": list(keys), "shard": pa.repeat(number, len(keys))}))
        (wanted,) = connection.execute("SELECT count(DISTINCT key) FROM packed").fetchone() or (0,)
        for some in batches(records, COPIED if is_remote(root) else TARS):
            with ExitStack() as stack:
                tars = [stack.enter_context(_stored_shard(root, record)) for record in some]
                count += _write_of(connection, tars, stems)
    if count < wanted:
        lost = f"{wanted - count} of {wanted} pictures are not in {root / 'pairs'}"
        raise RecipeError(f"export: {lost}: see pipeline verify {root}; or give --no-pictures")
    return count


def _write_of(connection: "DuckDBPyConnection", tars: Sequence[Path], stems: Sequence[str]) -> int:
    """Write the pictures that these tars hold of packed samples; return how many."""
    count = 0
    for tar, in_shard in _packed_in(connection, tars):
        for key, sample in stored_pictures(tar, in_shard.keys()):
            put(f"{stems[in_shard[key]]}{key}.jpg", sample["jpg"])
            count += 1
    return count


def _insert(connection: "DuckDBPyConnection", rows: pa.Table) -> None:
    connection.register("rows", rows)
    connection.execute("INSERT INTO packed FROM rows")
    connection.unregister("rows")


@contextmanager
def _stored_shard(root: Path, record: ShardRecord) -> Iterator[Path]:
    """Yield the tar of a shard of pairs, of a store a local copy. Raises ShardError where it is not what its record
    says."""
    path = root / record.files[0].path
    with local_copy(path) if path.is_file() else nullcontext() as local:
        if local is None or sha256_file(local) != record.files[0].sha256:
            raise ShardError(f"{path} is not there, or damaged: see pipeline verify {root}, then pipeline repair")
        yield local


def _packed_in(connection: "DuckDBPyConnection", tars: Sequence[Path]) -> Iterator[tuple[Path, dict[str, int]]]:
    """Yield each tar with the packed shard, by number, of those of its pictures that are packed: key -> the last one
    that has it."""
    keys = [stored_keys(tar) for tar in tars]
    stored = pa.table({"key": pa.array([key for own in keys for key in own], pa.string())})
    connection.register("stored", stored)
    found = connection.execute(
        "SELECT key, max(shard) FROM packed WHERE key IN (SELECT key FROM stored) GROUP BY key"
    ).fetchall()
    connection.unregister("stored")
    places = dict(found)
    for tar, own in zip(tars, keys, strict=True):
        yield tar, {key: places[key] for key in own if key in places}

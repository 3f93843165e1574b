"""Write a run's codes as LlamaGen's own scripts read them: jsonl, one .npy per picture, T5 features, pictures."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from manifests.files import write_bytes, write_json
from manifests.shards import read_shard
from pipeline.features import TextFeatures
from pipeline.loader import Shard, find_shards
from pipeline.recipe import RecipeError
from pipeline.steps import records_of
from tokenize_shards.pack import npy_bytes, unpack_numbers

T5_BATCH = 64


@dataclass(frozen=True)
class ExportOptions:
    """What to export and where to. `text`: a T5 for features that the shards do not hold; none: only stored ones are written."""

    root: Path
    tier: str
    to: Path
    pictures: bool = True
    text: TextFeatures | None = None


@dataclass
class Exported:
    """What was written, and what was not there to write."""

    lines: int = 0
    pictures: int = 0
    features: int = 0
    without_llava: int = 0
    without_features: int = 0
    wanted: dict[bytes, Path] = field(default_factory=dict)


def export_llamagen(options: ExportOptions) -> Exported:
    """Write DIR/jsonl/STEM.jsonl, DIR/codes/STEM/LINE.npy, DIR/t5/STEM/LINE.npy, DIR/t5_short/STEM/LINE.npy and DIR/images/.

    STEM is the code shard's name and LINE the line's number from 0: LlamaGen knows a picture by nothing else (dataset/t2i.py). `text` is
    [blip, llava, llava_first]: the input's caption (its alt text where it has none), the captioner's, its short one; what is missing
    is filled with the first. Codes are int64 (1, N), of the first crop; features float32 (1, tokens, width), of text[0] and text[2].
    Raises RecipeError or LoaderError where the run has no codes of this tier.
    """
    done = Exported()
    for shard in find_shards(options.root / "codes", options.tier):
        _export_shard(options, shard, done)
    if options.pictures:
        done.pictures = _write_pictures(options.root, done.wanted)
        missing = len(done.wanted) - done.pictures
        if missing:
            where = options.root / "pairs"
            raise RecipeError(f"export: {missing} of {len(done.wanted)} pictures are not in {where}: first `pipeline verify`")
    figures = {name: getattr(done, name) for name in ("lines", "pictures", "features", "without_llava", "without_features")}
    write_json(options.to / "export.json", {"layout": "llamagen", "tier": options.tier, **figures})
    return done


def _export_shard(options: ExportOptions, shard: Shard, done: Exported) -> None:
    stem = shard.path.stem
    lines: list[dict[str, Any]] = []
    spoken: list[list[str]] = []
    for number, (key, sample) in enumerate(read_shard(shard.path)):
        note = json.loads(sample["json"])
        codes_KN = np.load(io.BytesIO(sample["codes.npy"]), allow_pickle=False)
        texts, sources = captions_by_position(note["captions"])
        done.without_llava += "llava" not in sources[1]
        path = (options.to / "images" / stem / f"{key}.jpg").absolute()
        done.wanted[bytes.fromhex(key)] = path
        lines.append({"image_path": str(path), "text": texts})
        spoken.append(texts)
        write_bytes(options.to / "codes" / stem / f"{number}.npy", npy_bytes(codes_KN[:1].astype(np.int64)))
        _stored_features(options, (stem, number), sample, done)
    if options.text:
        _made_features(options, stem, spoken, done)
    else:
        done.without_features += len(lines)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_bytes(options.to / "jsonl" / f"{stem}.jsonl", text.encode())
    done.lines += len(lines)


def captions_by_position(captions: Sequence[dict[str, str]]) -> tuple[list[str], list[str]]:
    """Return LlamaGen's three texts [blip, llava, llava_first] and which source each came from; a gap takes the first there is."""
    by_source = {caption["source"]: caption["text"] for caption in captions}
    made = [source for source in by_source if source not in ("alt", "top_caption") and not source.endswith("_short")]
    wanted: list[tuple[str, ...]] = [("top_caption", "alt"), tuple(made), tuple(f"{name}_short" for name in made)]
    first = next(iter(by_source), "")
    sources = [next((source for source in choices if source in by_source), first) for choices in wanted]
    return [by_source.get(source, "") for source in sources], sources


def _stored_features(options: ExportOptions, place: tuple[str, int], sample: dict[str, bytes], done: Exported) -> None:
    """Write the features that a sample holds, where they are those of text[0] or text[2] and are not made anew."""
    if "t5.npy" not in sample or options.text:
        return
    note = json.loads(sample["json"])
    _, sources = captions_by_position(note["captions"])
    features = unpack_numbers(np.load(io.BytesIO(sample["t5.npy"]), allow_pickle=False))
    for folder, position in (("t5", 0), ("t5_short", 2)):
        if note["t5"]["source"] == sources[position]:
            write_bytes(options.to / folder / place[0] / f"{place[1]}.npy", npy_bytes(features[None]))
            done.features += 1
            done.without_features -= folder == "t5"


def _made_features(options: ExportOptions, stem: str, texts: list[list[str]], done: Exported) -> None:
    assert options.text is not None
    for folder, position in (("t5", 0), ("t5_short", 2)):
        for start in range(0, len(texts), T5_BATCH):
            made = options.text.features([text[position] for text in texts[start : start + T5_BATCH]])
            for number, features in enumerate(made, start):
                write_bytes(options.to / folder / stem / f"{number}.npy", npy_bytes(features[None].astype(np.float32)))
                done.features += 1


def _write_pictures(root: Path, wanted: dict[bytes, Path]) -> int:
    """Write the stored JPEGs of the wanted pairs; return how many there were."""
    count = 0
    for record in records_of(root, "fetch"):
        for key, sample in read_shard(root / record.files[0].path):
            path = wanted.get(bytes.fromhex(key))
            if path is not None:
                write_bytes(path, sample["jpg"])
                count += 1
    return count

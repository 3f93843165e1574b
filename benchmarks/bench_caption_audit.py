"""How long an audit of captions takes and what it holds: `python benchmarks/bench_caption_audit.py [CAPTIONS]`.

Random words by a power law, captions of about 100 words that open alike, with alt text, top_caption, pHash and fate.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from captioning.corpus.terms import people_terms
from manifests.files import write_table
from pipeline.analysis.caption_audit import audit

SHARD = 10_000
LETTERS = "abcdefghijklmnoprstu"


def vocabulary(draw):
    """Return 40,000 made-up words and those of all terms, shuffled."""
    made = ["".join(draw.choice(list(LETTERS), draw.integers(2, 9))) for _ in range(40_000)]
    words = np.array([*made, *(word for term in people_terms().terms for word in term.words)], object)
    draw.shuffle(words)
    return words


def texts(draw, words, mean, opening=""):
    """Return SHARD texts of about `mean` words."""
    lengths = np.maximum(1, draw.normal(mean, 0.3 * mean, SHARD).astype(int))
    chosen, ends = words[draw.zipf(1.25, lengths.sum()) % len(words)], np.cumsum(lengths)
    cut = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    return [f"{opening}{' '.join(chosen[start:end])}." for start, end in cut]


def write_shard(root, name, draw, words):
    """Write the tables of one shard that an audit reads."""
    uid = pa.array([draw.bytes(16) for _ in range(SHARD)], pa.binary(16))
    alt = pa.table({"uid": uid, "text": texts(draw, words, 12), "top_caption": texts(draw, words, 10)})
    write_table(root / "manifests" / "plan" / "fetch" / f"{name}.parquet", alt)
    write_table(root / "ledger" / "select" / f"{name}.parquet", alt)
    reason = pa.array(["aesthetic" if drawn < 0.3 else None for drawn in draw.random(SHARD)], pa.string())
    fates = {"uid": uid, "reason": reason, "aesthetic_v2": draw.normal(5, 1, SHARD).astype(np.float32)}
    write_table(root / "ledger" / "final" / f"{name}.parquet", pa.table(fates))
    hashes = pa.array(draw.integers(0, 2**63, SHARD), pa.uint64())
    write_table(root / "scores" / f"{name}.parquet", pa.table({"uid": uid, "phash": hashes}))
    captions = texts(draw, words, 95, "The image features a ")
    said = {"uid": uid, "caption": captions, "reason": pa.nulls(SHARD, pa.string())}
    write_table(root / "captions" / f"llava-{name}.parquet", pa.table(said))


def main():
    """Write a run, audit it, print seconds and peak memory."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    draw = np.random.default_rng(0)
    words = vocabulary(draw)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rows // SHARD):
            write_shard(Path(folder), f"{number:05d}", draw, words)
        start, cpu = time.monotonic(), time.process_time()
        (found,) = audit(Path(folder)).captioners
        wall, cpu = time.monotonic() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{found.own:,} captions: {wall:.1f} s, {cpu:.1f} s of processor, peak {peak:.2f} GB, writing included")


if __name__ == "__main__":
    main()

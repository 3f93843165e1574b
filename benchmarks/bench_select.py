"""Select beside DuckDB and a row-at-a-time Beam pipeline, on one generated LAION-COCO-like file, in one run.

python benchmarks/bench_select.py [--rows 5000000] [--repeats 2] [--beam-rows 50000] [--curve 1000000,10000000]

Ours is the command as a user runs it, process start included, with uid, ledger and journal. DuckDB's times begin after
its import. The rules are those of the bundled laion_coco recipe that read numbers; language detection and the count of
words are left out, since no SQL of DuckDB's says the same. Wall times and CPU seconds are given: on a busy machine only
the latter compare. The last line is JSON.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from processes import tree

from manifests.journal import records_of
from pipeline.stages.manifest import versions

WORDS = (
    "a the of and with red blue old new photo house garden woman man dog cat mountain river city street night light"
    " wooden kitchen table vintage style art print wall design summer beach flower black white green modern car engine"
    " portrait landscape vector"
)
RECIPE = """
[input]
files = "{input}"
[output]
root = "{root}"
[filter]
rules = [
    {{ use = "size", min_side = 256 }},
    {{ use = "aspect", max = 3.0 }},
    {{ use = "watermark", max = 0.5 }},
    {{ use = "nsfw", max = 0.5 }},
    {{ use = "similarity", min = 0.28, column = "similarity" }},
]
[tier.pretrain]
size = 256
"""
COLUMNS = "URL, TEXT, top_caption, WIDTH, HEIGHT, similarity, pwatermark, punsafe"
REASON = """CASE
    WHEN URL IS NULL OR URL NOT LIKE '%_:_%' THEN 'bad_url'
    WHEN WIDTH < 256 OR HEIGHT < 256 THEN 'size'
    WHEN greatest(WIDTH, HEIGHT) > 3 * least(WIDTH, HEIGHT) THEN 'aspect'
    WHEN pwatermark IS NULL THEN 'missing_value' WHEN pwatermark > 0.5 THEN 'watermark'
    WHEN punsafe IS NULL THEN 'missing_value' WHEN punsafe > 0.5 THEN 'nsfw'
    WHEN similarity IS NULL THEN 'missing_value' WHEN similarity < 0.28 THEN 'similarity' END"""
WHERE = """URL LIKE '%_:_%' AND NOT
    coalesce(WIDTH < 256 OR HEIGHT < 256 OR greatest(WIDTH, HEIGHT) > 3 * least(WIDTH, HEIGHT), false)
    AND pwatermark <= 0.5 AND punsafe <= 0.5 AND similarity >= 0.28"""
UID = "unhex(md5(coalesce(URL, '') || chr(10) || coalesce(TEXT, '')))"


def generate(path: Path, rows: int) -> None:
    """Write `rows` rows with LAION-COCO's columns that select reads, its lengths of texts and its nulls; row groups as
    DuckDB's own."""
    with duckdb.connect() as connection:
        words = f"string_split('{WORDS}', ' ')"
        drawn = f"lambda k: ({words})[1 + (hash(n * 100 + k) % len({words}))::INT]"
        phrase = f"array_to_string(list_transform(range(1 + (hash(n) % 7)::INT), {drawn}), ' ')"
        connection.execute(f"CREATE TABLE phrases AS SELECT n AS i, {phrase} AS said FROM range(4096) t(n)")
        connection.execute(f"""
            COPY (
                SELECT CASE WHEN h % 1009 = 0 THEN NULL WHEN h % 1013 = 0 THEN 'no address' ELSE
                           'https://img' || (h % 9973) || '.shop' || (h % 613) || '.com/wp-content/uploads/'
                           || substr(hex(h) || hex(h % 281474976710597), 1, 8 + (h % 20)::INT)
                           || '/' || (h >> 20) || '.jpg' END AS URL,
                       if(h % 101 = 0, NULL, a.said || ' ' || b.said) AS TEXT, b.said || ' ' || c.said AS top_caption,
                       if(h % 97 = 0, NULL, (100 + (h >> 5) % 1500)::DOUBLE) AS WIDTH,
                       if(h % 97 = 0, NULL, (100 + (h >> 15) % 1500)::DOUBLE) AS HEIGHT,
                       0.260005 + ((h >> 3) % 10000) / 50000.0 AS similarity, h::BIGINT AS hash,
                       if(h % 89 = 0, NULL, (((h >> 7) % 10000) / 10000.0 + 0.00005)::FLOAT) AS pwatermark,
                       if(h % 83 = 0, NULL, pow(((h >> 9) % 10000) / 10000.0, 6) + 0.000003) AS punsafe
                FROM (SELECT (hash(n) >> 2)::UBIGINT AS h FROM range({rows}) t(n))
                JOIN phrases a ON a.i = (h >> 10) & 4095 JOIN phrases b ON b.i = (h >> 22) & 4095
                JOIN phrases c ON c.i = (h >> 34) & 4095
            ) TO '{path}' (FORMAT parquet, COMPRESSION snappy)""")


@dataclass
class Timing:
    """Wall and CPU seconds of one contender, and the largest memory of its processes in MiB (resident;
    proportional)."""

    wall: float
    cpu: float
    rss: float = 0.0
    pss: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


def timed(command: list[str], folder: Path) -> Timing:
    """Run a command to its end, watching the memory of its whole process tree."""
    peaks = [0.0, 0.0]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with open(folder / "said.txt", "w") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
    watch = threading.Thread(target=_watch, args=(process, peaks), daemon=True)
    watch.start()
    code = process.wait()
    wall = time.perf_counter() - start
    watch.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said_text = (folder / "said.txt").read_text()
    if code:
        raise SystemExit(f"{command} ended with {code}:\n{said_text[-3000:]}")
    last = said_text.strip().rpartition("\n")[2]
    facts = json.loads(last) if last.startswith("{") else {}
    return Timing(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, *peaks, facts)


def _watch(process: "subprocess.Popen[Any]", peaks: list[float]) -> None:
    while process.poll() is None:
        found = [_memory(pid) for pid in tree(process.pid)]
        for place in (0, 1):
            peaks[place] = max(peaks[place], sum(memory[place] for memory in found))
        time.sleep(0.1)


def _memory(pid: int) -> tuple[float, float]:
    """Return (resident, proportional) memory in MiB; pages that processes share count once in the second."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        return int(lines["Rss"].split()[0]) / 1024, int(lines["Pss"].split()[0]) / 1024
    except (OSError, KeyError):
        return 0.0, 0.0


def ours(table: Path, folder: Path) -> Timing:
    """Run the command; add what its journal says to the facts."""
    root = folder / "run"
    shutil.rmtree(root, ignore_errors=True)
    (folder / "recipe.toml").write_text(RECIPE.format(input=table, root=root))
    made = timed([sys.executable, "-m", "pipeline.cli", "run", "--stage", "filter", "--step", "select"], folder)
    records = records_of(root, "select")
    reasons: dict[str, int] = {}
    for record in records:
        for reason, count in record.dropped.items():
            reasons[reason] = reasons.get(reason, 0) + count
    made.facts = {"kept": sum(record.rows_out for record in records), "reasons": reasons}
    return made


def duck(kind: str, table: Path, folder: Path) -> Timing:
    """Run one of DuckDB's programs in a process of its own; its wall time is that of the statements alone."""
    made = timed([sys.executable, str(Path(__file__).resolve()), "--contender", kind, "--table", str(table)], folder)
    return Timing(made.facts["wall"], made.facts["cpu"], made.rss, made.pss, made.facts)


def contender(kind: str, table: str) -> None:
    """Be one contender; print a line of JSON."""
    work = {"bare": bare, "two": two, "beam": beam_rows}[kind]
    start, cpu = time.perf_counter(), time.process_time()
    kept = work(table)
    print(json.dumps({"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu, **kept}))


def bare(table: str) -> dict[str, Any]:
    """Write the survivors, nothing else."""
    kept = duckdb.connect().execute(
        f"COPY (SELECT {COLUMNS} FROM '{table}' WHERE {WHERE}) TO 'bare.parquet' (FORMAT parquet, COMPRESSION zstd)"
    )
    return {"kept": kept.fetchall()[0][0]}


def two(table: str) -> dict[str, Any]:
    """Write the survivors with their uid; and uid, fate and reason of every row."""
    connection = duckdb.connect()
    verdicts = f"(SELECT *, {UID} AS uid, {REASON} AS reason FROM '{table}')"
    write = "(FORMAT parquet, COMPRESSION zstd)"
    kept = connection.execute(
        f"COPY (SELECT uid, {COLUMNS} FROM {verdicts} WHERE reason IS NULL) TO 'kept.parquet' {write}"
    ).fetchall()
    connection.execute(
        f"COPY (SELECT uid, if(reason IS NULL, 'kept', 'dropped') AS fate, reason FROM {verdicts}) TO 'fates.parquet'"
        f" {write}"
    )
    return {"kept": kept[0][0]}


def beam_rows(table: str) -> dict[str, Any]:
    """Do the same a row at a time: read, evaluate, write the survivors."""
    import hashlib

    import apache_beam as beam
    import pyarrow as pa
    from apache_beam.io.parquetio import ReadFromParquet, WriteToParquet
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    def passes(row: dict[str, Any]) -> bool:
        width, height = row["WIDTH"] or 256, row["HEIGHT"] or 256
        small = min(width, height) < 256 or max(width, height) > 3 * min(width, height)
        return not (
            small
            or ":" not in (row["URL"] or "")
            or (row["pwatermark"] or 1) > 0.5
            or (row["punsafe"] or 1) > 0.5
            or row["similarity"] < 0.28
        )

    def with_uid(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "uid": hashlib.md5(f"{row['URL']}\n{row['TEXT'] or ''}".encode()).digest()}

    texts, numbers = ("URL", "TEXT", "top_caption"), ("WIDTH", "HEIGHT", "similarity", "pwatermark", "punsafe")
    wanted = pa.schema(
        {**dict.fromkeys(texts, pa.string()), **dict.fromkeys(numbers, pa.float64()), "uid": pa.binary(16)}
    )
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        rows = pipeline | ReadFromParquet(table, columns=[*texts, *numbers]) | beam.Filter(passes) | beam.Map(with_uid)
        _ = rows | WriteToParquet("rows", wanted)
    return {}


def best(runs: list[Timing]) -> Timing:
    """Return the run with the shortest wall time, with the least CPU seconds and the most memory of all runs."""
    found = min(runs, key=lambda run: run.wall)
    return Timing(
        found.wall,
        min(run.cpu for run in runs),
        max(run.rss for run in runs),
        max(run.pss for run in runs),
        found.facts,
    )


def say(name: str, made: Timing, rows: int) -> None:
    memory = f"  memory {made.rss:,.0f} MiB resident, {made.pss:,.0f} MiB proportional" if made.rss else ""
    print(f"{name:<34} {made.wall:8.2f} s  {made.cpu:8.2f} CPU s  {rows / made.wall:12,.0f} rows/s{memory}", flush=True)


def side_by_side(rows: int, repeats: int, beam_count: int, folder: Path) -> dict[str, Any]:
    """Measure every contender on one file, in turns; return the figures."""
    table, few, tiny = folder / "table.parquet", folder / "few.parquet", folder / "tiny.parquet"
    for path, count in ((table, rows), (few, beam_count), (tiny, 1000)):
        generate(path, count)
    print(f"{rows:,} rows, {table.stat().st_size / 1e6:,.0f} MB", flush=True)
    ours(tiny, folder)  # the first run of an installation compiles what it imports
    start = best([ours(tiny, folder) for _ in range(repeats)])
    say("our select, 1,000 rows (start-up)", start, 1000)
    runs: dict[str, list[Timing]] = {"bare": [], "two": [], "ours": []}
    for _ in range(repeats):
        for name, made in runs.items():
            made.append(ours(table, folder) if name == "ours" else duck(name, table, folder))
    found = {name: best(made) for name, made in runs.items()}
    counts = {name: made.facts["kept"] for name, made in found.items()}
    if len(set(counts.values())) > 1 or counts["ours"] + sum(found["ours"].facts["reasons"].values()) != rows:
        raise SystemExit(f"the contenders do not agree: {counts}, {found['ours'].facts}")
    beam = duck("beam", few, folder)
    titles = {
        "bare": "DuckDB, bare COPY … WHERE",
        "two": "DuckDB, the same two outputs",
        "ours": "our select, the whole command",
    }
    for name, made in found.items():
        say(titles[name], made, rows)
    say(f"Beam row at a time, {beam_count:,} rows", beam, beam_count)
    return {
        "rows": rows,
        "kept": counts["ours"],
        "startup_s": round(start.wall, 2),
        **{f"{name}_s": round(made.wall, 2) for name, made in found.items()},
        **{f"{name}_cpu_s": round(made.cpu, 2) for name, made in found.items()},
        "ours_peak_mib": round(found["ours"].rss),
        "beam_rows_per_s": round(beam_count / beam.wall),
        "ratio": {name: round(found[name].wall / found["ours"].wall, 2) for name in ("bare", "two")},
        "ratio_cpu": {name: round(found[name].cpu / found["ours"].cpu, 2) for name in ("bare", "two")},
        "ratio_beam_rows": round(rows / found["ours"].wall / (beam_count / beam.wall), 1),
    }


def curve(sizes: list[int], repeats: int, folder: Path) -> list[dict[str, Any]]:
    """Return time and memory of our select for growing inputs."""
    found = []
    for rows in sizes:
        generate(folder / "table.parquet", rows)
        made = best([ours(folder / "table.parquet", folder) for _ in range(repeats)])
        say(f"our select, {rows:,} rows", made, rows)
        found.append(
            {
                "rows": rows,
                "s": round(made.wall, 2),
                "cpu_s": round(made.cpu, 2),
                "rss_mib": round(made.rss),
                "pss_mib": round(made.pss),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--beam-rows", type=int, default=50_000)
    parser.add_argument("--curve", default="", help="sizes, such as 1000000,10000000")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--table", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.contender:
        contender(asked.contender, asked.table)
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")))
    )
    with tempfile.TemporaryDirectory(prefix="tessera-select-") as folder:
        figures = side_by_side(asked.rows, asked.repeats, asked.beam_rows, Path(folder))
        if asked.curve:
            figures["curve"] = curve([int(size) for size in asked.curve.split(",")], asked.repeats, Path(folder))
    print(
        json.dumps(
            {"benchmark": "select", **figures, "cores": len(os.sched_getaffinity(0)), "machine": versions()["machine"]}
        )
    )


if __name__ == "__main__":
    main()

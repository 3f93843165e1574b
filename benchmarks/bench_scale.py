"""Measure what every step and every question costs as rows grow: CPU s, wall s, peak MiB, bytes read, written, spilled.

    python benchmarks/bench_scale.py [--rows 1e6 3e6 10e6] [--out scale.json] [--folder DIR] [--shards 60000]
        [--packing 5000] [--code CHECKOUT] [--only WORD ...] [--leave-out WORD ...] [--table] [--predict 30e6]

No network and no pictures: the input is generated, and what fetch, score, encode and t5 would leave is made up; all
else is done by the steps, asked for by the registry, each in a process of its own. Figures are added to `--out` as they
come: the same command goes on where it was stopped, and measures nothing of a commit twice. `pipeline plan --workers N`
reads that file. On two cores with nothing else to do a million rows take about four minutes and 0.7 GB of disk, ten
millions forty and 7 GB, thirty millions two hours and 20 GB; the folder of a size is removed when it is done.
`--shards N`: N fetch shards of ten rows: what a file and a record cost; a rerun with nothing to do, a dry run (60,000:
half an hour).
`--packing N`: N encoded shards that are packed into N: bytes that pack reads beside bytes of codes.
`--predict ROWS`: measure nothing; fit the laws of a rehearsal to the runs of up to 10 million rows in --out and hold
them against its run of ROWS; exit 1 where a figure is off by more than a quarter.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import tree
from scale_file import DONE, line, predict, read, table, write

HERE = Path(__file__).resolve().parent
SCRATCH = (".tmp-duckdb", ".shuffle")
"""Folders of a run that only hold what is spilled or on its way."""
TWICE_UP_TO = 10_000_000
"""Rows up to which plans and work are measured with several workers too."""
QUESTIONS = {
    "whatif tier": ["whatif", "--set", "tier.pretrain.rules.aesthetic.min=5.9"],
    "whatif filter": ["whatif", "--set", "filter.rules.similarity.min=0.3"],
    "why uid": ["why", "{kept}"],
    "why url": ["why", "{url}"],
    "why dropped": ["why", "{dropped}"],
    "plan": ["plan"],
    "report": ["report"],
    "verify": ["verify", "{root}", "--quiet"],
    "rerun": ["run", "--stage", "filter"],
    "dry run": ["run", "--stage", "filter", "--dry-run"],
    "export": ["export", "llamagen", "{root}", "--to", "{folder}/export", "--no-pictures"],
    "remove": ["remove", "{root}", "--uid", "{kept}"],
}
"""Name -> the command; `remove` comes last, since it changes the run."""
OWN_FOLDER = ("verify", "export", "remove")
"""Questions that take the run folder as an argument, not as --out."""


@dataclass
class Bench:
    """Measures one folder and adds what it finds to the file."""

    options: argparse.Namespace
    folder: Path
    facts: dict[str, Any]
    known: list[dict[str, Any]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "run"

    def child(self, action: str, name: str = "", workers: int = 1) -> dict[str, Any]:
        """Do an action in a process of its own; return what it said, with what it took. Raises RuntimeError."""
        made = self.measure([str(HERE / "scale_child.py"), str(self.folder), action, name, str(workers)])
        if made["code"]:
            raise RuntimeError(f"{action} {name}: {made['failed']}")
        return made

    def measure(self, arguments: list[str]) -> dict[str, Any]:
        """Run Python with these arguments; watch its memory and its scratch folders."""
        code = Path(self.options.code or HERE.parent).resolve()
        environment = {**os.environ, "PYTHONPATH": f"{code}{os.pathsep}{HERE}"}
        before = _files(self.root)
        said = self.folder / "said.txt"
        start = time.time()
        with open(said, "w") as out:
            process = subprocess.Popen(
                [sys.executable, *arguments], cwd=self.folder, env=environment, stdout=out, stderr=subprocess.STDOUT
            )
        peaks = {"spilled": 0, "tree_mib": 0.0, "stopped": ""}
        watch = threading.Thread(target=self._watch, args=(process.pid, start, peaks), daemon=True)
        watch.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        read = _read(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.time() - start
        watch.join()
        after = _files(self.root)
        new = {path: size for path, size in after.items() if before.get(path) != size}
        told = said.read_text(errors="replace").strip()
        last = told.rpartition("\n")[2]
        facts = json.loads(last) if last.startswith("{") and process.returncode == 0 else {}
        return {
            "code": process.returncode,
            "failed": (peaks["stopped"] or told[-600:]) if process.returncode else "",
            "cpu_s": usage.ru_utime + usage.ru_stime,
            "wall_s": wall,
            "peak_mib": usage.ru_maxrss / 1024,
            "read": read,
            "written": sum(size for size, _ in new.values()),
            "files": len(new),
            "spilled": peaks["spilled"],
            **facts,
        }

    def _watch(self, pid: int, start: float, peaks: dict[str, Any]) -> None:
        """Note the largest size of the scratch folders; end a process tree that takes too much."""
        while Path(f"/proc/{pid}/stat").exists() and " Z " not in _stat(pid):
            size = sum(size for name in SCRATCH for size, _ in _files(self.root / name, scratch=True).values())
            peaks["spilled"] = max(peaks["spilled"], size)
            largest = max((_resident(one) for one in tree(pid)), default=0.0)
            if largest > self.options.most_gib * 1024:
                peaks["stopped"] = f"stopped: a process of more than {self.options.most_gib} GiB"
            if time.time() - start > self.options.most_s:
                peaks["stopped"] = f"stopped after {self.options.most_s:.0f} s"
            if peaks["stopped"]:
                for one in reversed(tree(pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(one, signal.SIGKILL)
                return
            time.sleep(0.2)

    def has(self, kind: str, name: str, workers: int = 1) -> bool:
        """Tell whether this was measured with this code."""
        wanted = {**self.facts, "kind": kind, "name": name, "workers": workers}
        return any(all(one.get(key) == wanted[key] for key in wanted if key != "counts") for one in self.known)

    def note(self, kind: str, name: str, made: dict[str, Any], workers: int = 1) -> None:
        """Add a measurement to the file and say it."""
        kept = ("cpu_s", "wall_s", "peak_mib", "worker_mib", "read", "written", "files", "spilled", "units", "failed")
        entry = {**self.facts, "kind": kind, "name": name, "workers": workers, "rows": self.facts["input"]}
        entry |= {
            key: round(made[key], 2) if isinstance(made[key], float) else made[key] for key in kept if key in made
        }
        self.known.append(entry)
        write(self.options.out, self.known)
        print(f"  {self.facts['input']:>12,} {self.facts['mode']}  {line(entry)}", flush=True)

    def wanted(self, kind: str, name: str, workers: int = 1) -> bool:
        """Tell whether this is asked for and not measured."""
        words, not_these = self.options.only, self.options.leave_out
        asked = not words or any(word in f"{kind} {name}" for word in words)
        asked = asked and not any(word in f"{kind} {name}" for word in not_these)
        return asked and not self.has(kind, name, workers)

    def step(self, step: dict[str, Any]) -> None:
        """Measure the plan of a step and its work; make up the work of one that needs a network or a model."""
        name, several = step["name"], self.options.workers
        twice = self.facts["input"] <= TWICE_UP_TO and self.facts["mode"] == "rows"
        if name in ("t5", "pack"):
            self.child("order", name, several)
        if twice and self.wanted("plan", name, several):
            self.child("unplan", name)
            self.note("plan", name, self.child("plan", name, several), several)
            self.child("unplan", name)
        if self.wanted("plan", name):
            self.note("plan", name, self.child("plan", name))
        if step["forged"]:
            self.child("forge", name)
            return
        if twice and self.wanted("work", name, several):
            self.note("work", name, self._work(name, several), several)
            self.child("undo", name)
        if self.wanted("work", name):
            self.note("work", name, self._work(name, 1))
        else:
            self.child("work", name)

    def _work(self, name: str, workers: int) -> dict[str, Any]:
        made = self.child("work", name, workers)
        made["cpu_s"] -= made.pop("cpu_before")
        return made

    def question(self, name: str, command: list[str], words: dict[str, str]) -> None:
        """Measure a command as a user gives it."""
        if not self.wanted("question", name):
            return
        shutil.rmtree(self.folder / "export", ignore_errors=True)
        given = [word.format(root=self.root, folder=self.folder, **words) for word in command]
        rest = [] if name in OWN_FOLDER else ["--recipe", "recipe.toml"]
        self.note("question", name, self.measure(["-m", "pipeline.cli", *given, *rest]))

    def run(
        self, rows: int, shard_rows: int = 10_000, packed_rows: int = 10_000, asked: Sequence[str] = tuple(QUESTIONS)
    ) -> None:
        """Measure everything at one size, and these questions."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.child("prepare", f"{rows},{shard_rows},{packed_rows}")
        steps = [one for one in self.child("steps")["steps"] if one["stage"] in self.options.stages]
        for number, step in enumerate(steps):
            self.step(step)
            ends = [one["stage"] for one in steps[number + 1 :]][:1] != [step["stage"]]
            if ends and self.wanted("manifest", step["stage"]):
                self.note("manifest", step["stage"], self.child("manifest", step["stage"]))
        self._tell_rows()
        words = dict(zip(("kept", "url", "dropped"), self.child("targets")["targets"], strict=True))
        for name in asked:
            self.question(name, QUESTIONS[name], words)

    def _tell_rows(self) -> None:
        """Write beside each measurement of this size how many rows the step read."""
        told = self.child("rows")
        for one in self.known:
            if all(one.get(key) == self.facts[key] for key in ("mode", "input", "commit")) and one["kind"] != DONE:
                one |= {"counts": told["counts"], "rows": told["read"].get(one["name"], self.facts["input"])}
        self.facts["counts"] = told["counts"]
        write(self.options.out, self.known)


def many_shards(bench: Bench, rows: int) -> None:
    """Measure fetch shards of ten rows in the filter stage: what every file and record costs."""
    bench.options = argparse.Namespace(**{**vars(bench.options), "stages": ["filter"]})
    bench.run(rows, shard_rows=10, asked=("rerun", "dry run", "verify", "whatif tier", "why uid", "report"))


def packing(bench: Bench, shards: int) -> None:
    """Measure packing of as many encoded shards into as many packed ones; say how often a byte of codes is read."""
    bench.run(shards * 400, shard_rows=180, packed_rows=25, asked=())
    codes = sum(size for size, _ in _files(bench.root / "codes" / "encoded").values())
    packed = [one for one in bench.known if one["mode"] == "packing" and one["name"] == "pack" and "read" in one]
    for one in packed:
        one["read_per_code_byte"] = round(one["read"] / max(codes, 1), 2)
        print(
            f"  {one['kind']} pack: {one['read'] / 1e6:,.1f} MB read, {one['read_per_code_byte']} x the bytes of codes"
        )
    write(bench.options.out, bench.known)


def _stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return " Z "


def _resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024**2
    except (OSError, IndexError):
        return 0.0


def _read(pid: int) -> int:
    """Return the bytes that a process that has ended, and those it waited for, read from files and pipes."""
    try:
        return int(Path(f"/proc/{pid}/io").read_text().split()[1])
    except OSError:
        return 0


def _files(folder: Path, scratch: bool = False) -> dict[str, tuple[int, int]]:
    """Return path -> (bytes, time of the last change) of the files below a folder, without those of scratch folders."""
    found: dict[str, tuple[int, int]] = {}
    for at, folders, names in os.walk(folder):
        if not scratch:
            folders[:] = [name for name in folders if name not in SCRATCH]
        for name in names:
            path = os.path.join(at, name)
            with contextlib.suppress(OSError):
                status = os.stat(path)
                found[path] = (status.st_size, status.st_mtime_ns)
    return found


def commit_of(checkout: Path) -> str:
    """Return the commit of a checkout, with a plus where files of it are changed; "?" outside git."""
    try:
        ask = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=12", "--dirty=+"]
        return subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "?"


def main() -> None:
    """Measure what is asked for and is not in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    number = lambda text: int(float(text))  # noqa: E731
    parser.add_argument("--rows", type=number, nargs="*", default=[100_000], help="sizes, such as 1e6 3e6 10e6")
    parser.add_argument("--out", type=Path, default=Path("scale.json"), help="file of costs that is added to")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "tessera-scale")
    parser.add_argument("--keep", action="store_true", help="leave the folder of each size")
    parser.add_argument("--workers", type=int, default=2, help="workers beside one")
    parser.add_argument("--shards", type=number, default=0, help="fetch shards of ten rows")
    parser.add_argument("--packing", type=number, default=0, help="encoded shards, and packed ones")
    parser.add_argument("--code", type=Path, help="measure this checkout instead")
    parser.add_argument("--only", nargs="*", default=[], help="measure only what has one of these words in its name")
    parser.add_argument(
        "--leave-out", nargs="*", default=[], help="measure nothing with one of these words in its name"
    )
    parser.add_argument("--stages", nargs="*", default=["filter", "pretokenize"], help="which of them")
    parser.add_argument("--most-gib", type=float, default=12.0, help="end a process that takes more")
    parser.add_argument("--most-s", type=float, default=7200.0, help="end a measurement that takes longer")
    parser.add_argument("--table", action="store_true", help="only print the table of what is in --out")
    parser.add_argument("--predict", type=number, metavar="ROWS", help="hold the laws of smaller runs against this one")
    options = parser.parse_args()
    options.out = options.out.resolve()
    if options.predict:
        sys.exit(predict(options.out, options.predict))
    known = read(options.out)
    commit = commit_of(options.code or HERE.parent)
    jobs = [("rows", rows, None) for rows in sorted(options.rows)]
    jobs += [("shards", round(options.shards * 10 / 0.42), many_shards)] if options.shards else []
    jobs += [("packing", options.packing, packing)] if options.packing else []
    for mode, size, work in [] if options.table else jobs:
        folder = options.folder.resolve() / f"{mode}-{size}"
        bench = Bench(options, folder, {"mode": mode, "input": size, "commit": commit}, known)
        everything = " ".join([*options.stages, *options.only, *(f"-{word}" for word in options.leave_out)])
        if bench.has(DONE, everything):
            continue
        print(f"{mode} {size:,}: in {folder}", flush=True)
        started = time.time()
        work(bench, size) if work else bench.run(size)
        print(f"  {mode} {size:,}: {time.time() - started:,.0f} s in all", flush=True)
        known.append({"mode": mode, "input": size, "commit": commit, "kind": DONE, "name": everything, "workers": 1})
        write(options.out, known)
        if not options.keep:
            shutil.rmtree(folder)
    print("\n".join(table(known)))
    print(json.dumps({"benchmark": "scale", "sizes": sorted({one["input"] for one in known}), "out": str(options.out)}))


if __name__ == "__main__":
    main()

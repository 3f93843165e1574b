"""Kill parts of the running cluster at random moments of a run; the same command must end with the same digest.

`make cluster-up`, then `python -m deploy.chaos --times 5`. A line of JSON per trial goes to build/cluster/chaos.jsonl.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deploy import flink
from deploy.cluster import get, slots
from deploy.demo import LIGHT, Trial
from deploy.jars import HOME, ROOT
from deploy.processes import end_of_log, noted_in, start, wait_until
from deploy.settings import Settings, read, run_folder

MOST_RUNS = 4
"""Times that the same command may be needed until it ends with 0."""
RUN_S = 900.0
FIRST_S, LAST_S = 5.0, 60.0
"""Seconds after the start of a command within which something is killed."""
OTHER = "fetch.shard_rows=60"
"""Another recipe, for the run on this machine after a Ctrl-C: other shards of the same names."""


@dataclass
class Outcome:
    """What became of one trial."""

    kind: str
    after_s: float
    codes: list[int] = field(default_factory=list)
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    said: str = ""


def below(pid: int) -> dict[int, str]:
    """Return the processes below one, at any depth, with their commands."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX":
                parents[int(folder.name)] = int(fields[1])
                commands[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    family = {pid}
    while fresh := {child for child, parent in parents.items() if parent in family} - family:
        family |= fresh
    return {one: commands[one] for one in family - {pid} if one in commands}


def kill(pids: list[int], chance: random.Random) -> str:
    """Kill one of these processes; return which, or nothing where there is none."""
    if not pids:
        return ""
    pid = chance.choice(sorted(pids))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return str(pid)


def victims(kind: str, command: int, folder: Path) -> list[int]:
    """Return the processes of which one is to be killed."""
    noted = {one.name: one for one in noted_in(folder) if one.alive}
    if kind.startswith("taskmanager"):
        return [one.pid for name, one in noted.items() if name.startswith("flink-taskmanager")]
    if kind == "worker":
        forks = [pid for pid, words in below(noted["pool"].pid).items() if "pool_process" in words]
        return [pid for fork in forks for pid in below(fork)]
    if kind == "server":
        return [pid for pid, words in below(command).items() if words.startswith("java") and "-job-server.jar" in words]
    return [command]


def disturb(kind: str, process: "subprocess.Popen[bytes]", folder: Path, chance: random.Random) -> None:
    """Wait for the victim to be there, and kill it; after the end of the command there is none."""
    while process.poll() is None:
        if kind == "ctrl-c":
            os.killpg(process.pid, signal.SIGINT)
            return
        if kill(victims(kind, process.pid, folder), chance):
            return
        time.sleep(0.2)


def run_once(
    trial: Trial, settings: Settings, log: Path, disturbing: Callable[["subprocess.Popen[bytes]"], None]
) -> int:
    """Run the command of the trial's stage with something that happens meanwhile; return its exit code."""
    with log.open("ab") as out:
        command = trial.command("filter", settings)
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, start_new_session=True)
    try:
        disturbing(process)
        return process.wait(RUN_S)
    except subprocess.TimeoutExpired:
        return -1
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def mend(settings: Settings, folder: Path) -> None:
    """Start the TaskManagers that are gone, and wait for their slots."""
    alive = {one.name for one in noted_in(folder) if one.alive}
    for name, command in flink.commands(settings, folder).items():
        if name not in alive:
            start(name, command, folder)
    wait_until(lambda: slots(settings) >= settings.parallelism, 120.0)


def left(settings: Settings, root: Path, before: set[int]) -> list[str]:
    """Return what is left behind where nothing must be: jobs, processes, temporary files."""
    found = []
    jobs = get(f"http://127.0.0.1:{settings.flink_page}/jobs/overview")["jobs"]
    assert isinstance(jobs, list)
    ended = ("FINISHED", "FAILED", "CANCELED")
    found += [f"job {job['name']} is {job['state']}" for job in jobs if job["state"] not in ended]
    everything = below(1)
    servers = {pid for pid, words in everything.items() if "-job-server.jar" in words and str(HOME) in words}
    others = {pid for run, words in everything.items() if "pipeline.cli run" in words for pid in below(run)}
    found += [f"job server {pid}" for pid in sorted(servers - before - others)]
    found += [f"{path.relative_to(root)}" for path in root.rglob("*.tmp*")]
    found += [f"{path.relative_to(root)}" for path in root.rglob(".tmp*")]
    return found


class Chaos:
    """Trials of one seed on the cluster that runs."""

    def __init__(self, settings: Settings, seed: int, home: Path = HOME) -> None:
        self.settings, self.home, self.chance = settings, home, random.Random(seed)
        self.local = Trial("local", home / "chaos" / "local", str(LIGHT), ("filter",))
        self.other = Trial("local", home / "chaos" / "other", str(LIGHT), ("filter",), (OTHER,))

    def prepare(self) -> None:
        """Run both recipes on this machine, undisturbed: their digests are what is wanted."""
        for trial in (self.local, self.other):
            code = run_once(trial, self.settings, self._log(trial), lambda process: None)
            if code:
                raise OSError(f"the undisturbed run ended with {code}:\n{end_of_log(self._log(trial))}")

    def _log(self, trial: Trial) -> Path:
        trial.root.parent.mkdir(parents=True, exist_ok=True)
        return trial.root.with_suffix(".log")

    def trial(self, kind: str, number: int) -> Outcome:
        """Disturb one run, repeat its command until it ends well, and look at what came out."""
        folder, root = run_folder(self.home), self.home / "chaos" / f"{kind}-{number}"
        shutil.rmtree(root, ignore_errors=True)
        mend(self.settings, folder)
        wide = self.settings.parallelism - self.settings.slots * (kind == "taskmanager-spare")
        trial = Trial("flink", root, str(LIGHT), ("filter",), (f"runner.parallelism={wide}",))
        outcome = Outcome(kind, round(self.chance.uniform(FIRST_S, LAST_S), 1))
        before, began = set(below(1)), time.monotonic()

        def disturbing(process: "subprocess.Popen[bytes]") -> None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(outcome.after_s)
            disturb(kind, process, folder, self.chance)

        outcome.codes.append(run_once(trial, self.settings, self._log(trial), disturbing))
        if kind == "ctrl-c" and outcome.codes[0] == 130:
            self._after_ctrl_c(trial, outcome, before)
        while outcome.codes[-1] and len(outcome.codes) < MOST_RUNS:
            outcome.codes.append(run_once(trial, self.settings, self._log(trial), lambda process: None))
        outcome.seconds = round(time.monotonic() - began)
        self._judge(trial, self.local, outcome, before)
        outcome.said = end_of_log(self._log(trial)) if outcome.faults else ""
        return outcome

    def _after_ctrl_c(self, trial: Trial, outcome: Outcome, before: set[int]) -> None:
        """Hold the folder against another recipe on this machine: an orphan of the job would spoil it."""
        outcome.faults += [f"after Ctrl-C: {one}" for one in left(self.settings, trial.root, before)]
        other = Trial("local", trial.root, str(LIGHT), ("filter",), (OTHER,))
        code = run_once(other, self.settings, self._log(trial), lambda process: None)
        if code or other.digests() != self.other.digests():
            outcome.faults.append(f"another recipe after Ctrl-C: exit code {code}, digest {other.digests()}")
        outcome.codes.append(run_once(trial, self.settings, self._log(trial), lambda process: None))

    def _judge(self, trial: Trial, wanted: Trial, outcome: Outcome, before: set[int]) -> None:
        if outcome.codes[-1]:
            outcome.faults.append(f"the command still ends with {outcome.codes[-1]}")
        if trial.digests() != wanted.digests():
            outcome.faults.append(f"digest {trial.digests()}, wanted {wanted.digests()}")
        outcome.faults += left(self.settings, trial.root, before)
        verify = [sys.executable, "-m", "pipeline.cli", "verify", str(trial.root), "--quiet"]
        if subprocess.run(verify, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT).returncode:
            outcome.faults.append("verify finds something wrong")


KINDS = ("taskmanager-spare", "taskmanager-none", "worker", "server", "client", "ctrl-c")


def main(arguments: list[str] | None = None) -> int:
    """Do all trials, and return 1 where one came out wrong."""
    parser = argparse.ArgumentParser(prog="python -m deploy.chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=5, help="trials of each kind")
    parser.add_argument("--kinds", default=",".join(KINDS), help="with commas")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    if unknown := set(asked.kinds.split(",")) - set(KINDS):
        parser.error(f"no kind {sorted(unknown)}; there are {', '.join(KINDS)}")
    try:
        chaos = Chaos(read(run_folder()), asked.seed)
        chaos.prepare()
    except OSError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    wrong: Counter[str] = Counter()
    for number in range(asked.times):
        for kind in asked.kinds.split(","):
            outcome = chaos.trial(kind, number)
            with (HOME / "chaos.jsonl").open("a") as log:
                log.write(json.dumps(asdict(outcome)) + "\n")
            wrong[kind] += bool(outcome.faults)
            shown = "; ".join(outcome.faults) or "the same digest, nothing left"
            print(
                f"{kind:18} after {outcome.after_s:5} s, exit codes {outcome.codes}, {outcome.seconds} s: {shown}",
                flush=True,
            )
    print(", ".join(f"{kind} {asked.times - wrong[kind]} of {asked.times}" for kind in asked.kinds.split(",")))
    return 1 if sum(wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Run the demo here and on each engine of the cluster, and compare digests: `make cluster-demo`."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.cluster import runner_options
from deploy.jars import DRIVERS, HOME, ROOT
from deploy.processes import noted_in
from deploy.settings import Settings, read, run_folder

LIGHT = ROOT / "deploy" / "light.toml"
PAGES = {"flink": "flink_page", "spark": "spark_page"}


@dataclass(frozen=True)
class Trial:
    """One run of stages into a folder of its own, on this machine or an engine."""

    engine: str
    root: Path
    recipe: str | None = None
    stages: tuple[str, ...] = ("filter", "pretokenize")
    sets: tuple[str, ...] = ()

    def command(self, stage: str, settings: Settings) -> list[str]:
        """Return the command of one stage, as a user would type it."""
        recipe = ["--recipe", self.recipe] if self.recipe else []
        run = [sys.executable, "-m", "pipeline.cli", "run", "--stage", stage, "--out", str(self.root), *recipe]
        own = [word for one in self.sets for word in ("--set", one)]
        return [*run, *runner_options(self.engine, settings), *own]

    def digests(self) -> dict[str, str]:
        """Return stage -> digest of the stages that are done."""
        paths = {stage: self.root / "manifests" / f"{stage}.json" for stage in self.stages}
        return {stage: json.loads(path.read_text())["digest"] for stage, path in paths.items() if path.is_file()}


def local() -> dict[str, str]:
    """Return this environment, in which a Spark driver listens on 127.0.0.1 alone."""
    return {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"}


def run(trial: Trial, settings: Settings, log: Path) -> dict[str, str]:
    """Run the stages of a trial, all it says into a log, and return their digests. Raises OSError where one fails."""
    for stage in trial.stages:
        command = trial.command(stage, settings)
        print(f"\n$ {' '.join(command[2:])}", flush=True)
        before = time.monotonic()
        with log.open("ab") as out:
            code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=local()).returncode
        print(f"  {time.monotonic() - before:.0f} s, {log}", flush=True)
        if code:
            raise OSError(f"{trial.engine}: {stage} ended with {code}; see {log}")
    return trial.digests()


def running(folder: Path) -> set[str]:
    """Return the engines of the cluster that runs here."""
    return {one.name.partition("-")[0] for one in noted_in(folder) if one.alive} & set(DRIVERS)


def main(arguments: list[str] | None = None) -> int:
    """Run, compare, and return 1 where a digest differs or a run fails."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--light", action="store_true", help="the light recipe: one cheap scorer, one tier")
    parser.add_argument("--engines", help="with commas; all that run when not given")
    asked = parser.parse_args(arguments)
    folder = run_folder()
    try:
        settings = read(folder)
        engines = asked.engines.split(",") if asked.engines else sorted(running(folder))
        if not engines:  # settings outlive `down`
            raise OSError("no cluster runs; first: make cluster-up")
        if missing := set(engines) - running(folder):
            raise OSError(f"{', '.join(sorted(missing))} does not run here; start it: make cluster-up")
        name, recipe = ("light", str(LIGHT)) if asked.light else ("demo", None)
        digests = {}
        for engine in ("local", *engines):
            trial = Trial(engine, HOME / name / engine, recipe)
            if engine != "local":
                print(f"\n{engine}: jobs at http://127.0.0.1:{getattr(settings, PAGES[engine])}")
                shutil.rmtree(trial.root, ignore_errors=True)
            trial.root.parent.mkdir(parents=True, exist_ok=True)
            digests[engine] = run(trial, settings, trial.root.with_suffix(".log"))
    except OSError as error:
        print(f"cluster-demo: {error}", file=sys.stderr)
        return 1
    return compare(digests)


def compare(digests: dict[str, dict[str, str]]) -> int:
    """Print stage by stage which engine's digest is the local run's; return 0 where all are."""
    wrong = 0
    print()
    for stage, wanted in digests["local"].items():
        print(f"{stage:12} local  {wanted}")
        for engine in digests.keys() - {"local"}:
            same = digests[engine].get(stage) == wanted
            wrong += not same
            print(f"{'':12} {engine:6} {digests[engine].get(stage)}  {'the same' if same else 'DIFFERENT'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""Make run folders with the code of an earlier commit: whole, and killed in the middle of fetch, encode and remove.

    python tests/support/old_run.py OUT HOST:PORT [COMMIT]

HOST:PORT serves the pictures of tests/support/small_web.py (the `web` fixture does). The commit is taken out of git
into OUT/code and run by this environment's Python, in forks of one process that start no workers.
"""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.small_web import write_input, write_recipe

COMMIT = "590a07d236ba319bf425d6ce9ac4d57790ca4d98"
"""The commit before the code was laid out in rooms."""
REMOVED = "http://pictures.test/5.jpg"
STAGES = ("filter", "caption", "pretokenize")
SCRIPT = """
import json, os, shutil, signal, sys, traceback
from pathlib import Path
import torch
from transformers import LlavaForConditionalGeneration
import pipeline.pending
from manifests.manifest import Journal
from pipeline.folder import recipe_of_run
from pipeline.recipe import load_recipe
from pipeline.registry import STAGES
from pipeline.remove import remove_rows
from pipeline.selectors import gather
from pipeline.stages import StageOptions, run_stage
from pipeline.steps import Runtime

def run(recipe, stage, step, records):
    # do a stage; be killed once the step has that many records
    for one in STAGES[stage]:
        one.beam = False
    write = Journal.record
    def record(self, made):
        write(self, made)
        done = list(self.folder.glob("0*.json")) + list(self.folder.glob("*-0*.json"))
        if self.step == step and len(done) >= records:
            os.kill(os.getpid(), signal.SIGKILL)
    Journal.record = record
    run_stage(load_recipe(recipe), stage, StageOptions())

def remove(root, url, moves):
    # remove a row; be killed after so many files were put in place (0: never)
    move, done = os.replace, []
    def replace(source, target):
        if "/.removal/new/" in str(source):
            done.append(target)
            if len(done) > moves > 0:
                os.kill(os.getpid(), signal.SIGKILL)
        move(source, target)
    pipeline.pending.os.replace = replace
    remove_rows(Path(root), recipe_of_run(Path(root)), Runtime(), gather({"url": [url]}, []))

for name, killed, *args in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        code = 1
        try:
            {"run": run, "remove": remove, "copy": shutil.copytree}[name](*args)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == (-signal.SIGKILL if killed else 0), (name, args, ended)
"""
"""Do one thing after the other, each in a fork of this process, which has imported for all of them what takes long;
every one has to end as it is said to."""


def has(commit: str) -> bool:
    """Tell whether the commit is in this checkout's history: a shallow clone lacks it."""
    command = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0


def take_out(commit: str, folder: Path) -> Path:
    """Write the tree of a commit below `folder` and return it."""
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    path = folder.with_suffix(".tar")
    path.write_bytes(archive)
    with tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")
    path.unlink()
    return folder


def old(code: Path, *things: tuple[object, ...]) -> None:
    """Do these things by the old code: (name of a function, whether it is killed, its arguments). Raises
    AssertionError where one does not end as expected."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(things, default=str)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(code), "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stdout[-2000:]}{done.stderr[-4000:]}"


def make(out: Path, web: str, commit: str = COMMIT) -> dict[str, Path]:
    """Make the folders and return name -> folder: `whole`, `fetch`, `encode`, `remove` (killed there), `removed`."""
    root, recipe = out / "run", write_recipe(out / "recipe.toml", web, write_input(out / "in"), out / "run")
    folders = {name: out / name for name in ("fetch", "encode", "whole", "remove", "removed")}
    old(
        take_out(commit, out / "code"),
        ("run", True, recipe, "filter", "fetch", 2),
        ("copy", False, root, folders["fetch"]),
        ("run", False, recipe, "filter", "", 0),
        ("run", False, recipe, "caption", "", 0),
        ("run", True, recipe, "pretokenize", "encode", 2),
        ("copy", False, root, folders["encode"]),
        ("run", False, recipe, "pretokenize", "", 0),
        *(("copy", False, root, folders[name]) for name in ("whole", "remove", "removed")),
        ("remove", True, folders["remove"], REMOVED, 4),
        ("remove", False, folders["removed"], REMOVED, 0),
    )
    return folders


if __name__ == "__main__":
    for name, folder in make(Path(sys.argv[1]).resolve(), *sys.argv[2:]).items():
        print(f"{name:8} {folder}")

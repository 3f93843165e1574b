"""Make run folders with the code of an earlier commit: whole, and killed in the middle of fetch, encode and remove.

    python tests/support/old_run.py OUT HOST:PORT [COMMIT]

HOST:PORT serves the pictures of tests/support/small_web.py (the `web` fixture does). The commit is taken out of git
into OUT/code and run by this environment's Python, in processes of its own that start no workers.
"""

import shutil
import signal
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
RUN = """
import os, signal, sys
from manifests.manifest import Journal
from pipeline.recipe import load_recipe
from pipeline.registry import STAGES
from pipeline.stages import StageOptions, run_stage
recipe, stage, step, records = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
for one in STAGES[stage]:
    one.beam = False
write = Journal.record
def record(self, made):
    write(self, made)
    if self.step == step and len(list(self.folder.glob("0*.json")) + list(self.folder.glob("*-0*.json"))) >= records:
        os.kill(os.getpid(), signal.SIGKILL)
Journal.record = record
run_stage(load_recipe(recipe), stage, StageOptions())
"""
"""Do a stage; be killed once the step has that many records."""
REMOVE = """
import os, signal, sys
import pipeline.pending
from pipeline.folder import recipe_of_run
from pipeline.remove import remove_rows
from pipeline.selectors import gather
from pipeline.steps import Runtime
from pathlib import Path
root, url, moves = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
move, done = os.replace, []
def replace(source, target):
    if "/.removal/new/" in str(source):
        done.append(target)
        if len(done) > moves > 0:
            os.kill(os.getpid(), signal.SIGKILL)
    move(source, target)
pipeline.pending.os.replace = replace
remove_rows(root, recipe_of_run(root), Runtime(), gather({"url": [url]}, []))
"""
"""Remove a row; be killed after so many files were put in place (0: never)."""


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


def old(code: Path, script: str, *args: object, killed: bool = False) -> None:
    """Run a script by the old code. Raises AssertionError where it does not end as expected: by SIGKILL, or well."""
    command = [sys.executable, "-c", script, *map(str, args)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(code), "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, timeout=600, check=False)
    expected = -signal.SIGKILL if killed else 0
    assert done.returncode == expected, f"{done.returncode}: {done.stdout[-2000:]}{done.stderr[-4000:]}"


def make(out: Path, web: str, commit: str = COMMIT) -> dict[str, Path]:
    """Make the folders and return name -> folder: `whole`, `fetch`, `encode`, `remove` (killed there), `removed`."""
    code = take_out(commit, out / "code")
    root = out / "run"
    recipe = write_recipe(out / "recipe.toml", web, write_input(out / "in"), root)

    def kept_as(name: str) -> Path:
        shutil.copytree(root, out / name)
        return out / name

    folders = {}
    old(code, RUN, recipe, "filter", "fetch", 2, killed=True)
    folders["fetch"] = kept_as("fetch")
    old(code, RUN, recipe, "filter", "", 0)
    old(code, RUN, recipe, "caption", "", 0)
    old(code, RUN, recipe, "pretokenize", "encode", 2, killed=True)
    folders["encode"] = kept_as("encode")
    old(code, RUN, recipe, "pretokenize", "", 0)
    folders["whole"] = kept_as("whole")
    folders["remove"], folders["removed"] = kept_as("remove"), kept_as("removed")
    old(code, REMOVE, folders["remove"], REMOVED, 4, killed=True)
    old(code, REMOVE, folders["removed"], REMOVED, 0)
    return folders


if __name__ == "__main__":
    for name, folder in make(Path(sys.argv[1]).resolve(), *sys.argv[2:]).items():
        print(f"{name:8} {folder}")

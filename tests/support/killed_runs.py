"""Kill runs: with their workers at any moment, or one of a single process between a file and its record."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from manifests.journal import Journal
from tests.support.commands import command
from tests.support.journals import count
from tests.support.paths import ROOT


def kill_when(ready: Callable[[], bool], *args: object) -> bool:
    """Start the command line with its workers in a process group of its own, kill them as soon as it is `ready`, and
    tell whether they were killed: at most 120 s are waited."""
    process = subprocess.Popen(
        command(*args), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT
    )
    end = time.monotonic() + 120
    while not ready() and process.poll() is None and time.monotonic() < end:
        time.sleep(random.uniform(0.0, 0.02))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


class Killer:
    """A process that does stages and kills them between a file and its record: `with` it, use `before`.

    What stages import it imports once; each stage is done, and killed, in a fork of it that has no workers.
    """

    def __enter__(self) -> "Killer":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.killed_runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()  # its input ends, and so does it

    def before(self, recipe: Path, out: Path, stage: str, records: int) -> bool:
        """Run a stage into `out`, kill it when it is about to write one record more than `records`, and tell whether
        it was killed; after 300 s it ends by itself, which is an error as any other."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([str(recipe), str(out), stage, records]), file=self.process.stdin, flush=True)
        code = int(self.process.stdout.readline())
        assert code in (0, -signal.SIGKILL), code
        return code == -signal.SIGKILL


def _do(recipe: str, out: str, stage: str, records: int) -> None:
    """Do what `Killer.before` asks."""
    from pipeline.recipes.load import load_recipe
    from pipeline.stages.run import StageOptions, run_stage
    from tests.support.keep_runs import without_beam

    write = Journal.record

    def record(self, made):
        if count(Path(out)) >= records:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, made)

    Journal.record = record
    with without_beam():
        run_stage(load_recipe(recipe, [f"output.root={out!r}"]), stage, StageOptions())


def main() -> None:
    """Import what every stage needs; fork for each line of input, and answer with the exit code."""
    import torch  # noqa: F401
    from transformers import LlavaForConditionalGeneration  # noqa: F401

    import tests.support.keep_runs  # noqa: F401

    answers = os.dup(1)
    os.dup2(2, 1)  # what stages print is no answer
    for line in sys.stdin:
        child = os.fork()
        if not child:
            code = 1
            try:
                signal.alarm(300)
                _do(*json.loads(line))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(answers, b"%d\n" % ended)


if __name__ == "__main__":
    main()

"""Keep a note of each job that an engine does for a run, and end what an earlier client left running.

The note is written before the job is handed over, under a name that no other job has, so that there is no moment in
which a job runs and nobody knows it: job servers and Flink are asked for the name.
"""

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from manifests.files import FormatError, finished, read_json, write_json
from pipeline.execution.backends import EMBEDDED
from pipeline.execution.flink_rest import FlinkJob, FlinkRest
from pipeline.execution.job_service import BeamJob, JobService, Unreachable

FOLDER = Path("logs") / "jobs"
"""In the run folder: whoever takes it next, on this machine or another, finds the notes."""
END_S = 60.0
"""Seconds that a cancelled job may take to end."""
LATE_S = 5.0
"""Seconds within which Flink gets a job that the job server had taken already when it was asked to cancel it."""
TICK_S = 0.3


@dataclass(frozen=True)
class JobNote:
    """One job: its name on the engine, whose work it is, and where to ask for it. `job`, `engine`: its ids at the job
    server and at Flink, once they are known."""

    name: str
    step: str
    runner: str
    endpoint: str
    rest: str = ""
    own_server: bool = False
    """The job server is this run's own, and ends with it: what runs inside it does too."""
    job: str = ""
    engine: str = ""

    @property
    def ends_with_client(self) -> bool:
        """Tell whether nothing can be left of it once its client and a job server of its own have ended."""
        return self.endpoint == EMBEDDED or (self.own_server and not self.rest)


def new_name(step: str) -> str:
    """Return a name for a job that no other has: letters, digits and hyphens, as Dataflow wants them."""
    return f"tessera-{step.replace('_', '-')}-{secrets.token_hex(5)}"


def keep(root: Path, note: JobNote) -> JobNote:
    """Write a note into the run folder, in the place of an earlier one of the same job."""
    write_json(root / FOLDER / f"{note.name}.json", asdict(note))
    return note


def forget(root: Path, note: JobNote) -> None:
    """Take a note away: its job has ended."""
    (root / FOLDER / f"{note.name}.json").unlink(missing_ok=True)


def notes(root: Path) -> Iterator[JobNote]:
    """Yield the notes that are kept; one that cannot be read is taken away."""
    for path in finished(root / FOLDER, "*.json"):
        try:
            said = read_json(path)
            yield JobNote(**{field.name: said[field.name] for field in fields(JobNote)})
        except (FormatError, KeyError):
            path.unlink(missing_ok=True)


def ids_of(note: JobNote) -> tuple[JobNote, BeamJob | None, FlinkJob | None]:
    """Ask for a job; return the note with the ids that are known by now, and the job at the server and at Flink."""
    beam = None
    if note.endpoint and note.endpoint != EMBEDDED:
        with closing(JobService(note.endpoint)) as service:
            beam = service.job(note.name)
    flink = FlinkRest(note.rest).job(note.name) if note.rest else None
    return replace(note, job=beam.id if beam else note.job, engine=flink.id if flink else note.engine), beam, flink


def end_job(note: JobNote, seconds: float = END_S) -> bool:
    """Cancel a job and wait until it has ended; return whether there was anything to cancel.

    Flink's jobs are cancelled at Flink: the job server (2.62) says CANCELLED of one that Flink goes on with. Raises
    Unreachable where nobody who knows can be asked, or the job does not end in time.
    """
    if note.runner == "dataflow":
        raise Unreachable("Dataflow is not asked from here; cancel it there: gcloud dataflow jobs cancel")
    end = time.monotonic() + seconds
    cancelled, fault = False, None
    if note.endpoint and note.endpoint != EMBEDDED:
        try:
            cancelled = _end_at_server(note, end)
        except Unreachable as error:
            fault = error
    if note.rest:
        late = time.monotonic() + (LATE_S if cancelled else 0.0)
        return _end_at_flink(note, end, late) or cancelled
    if fault is not None:
        raise fault
    return cancelled


def _end_at_server(note: JobNote, end: float) -> bool:
    with closing(JobService(note.endpoint)) as service:
        return _end_at(service, note, end, service.job(note.name))


def _end_at_flink(note: JobNote, end: float, late: float) -> bool:
    rest = FlinkRest(note.rest)
    job = rest.job(note.name)
    while job is None and time.monotonic() < late:
        time.sleep(TICK_S)
        job = rest.job(note.name)
    return _end_at(rest, note, end, job)


def _end_at(engine: JobService | FlinkRest, note: JobNote, end: float, job: BeamJob | FlinkJob | None) -> bool:
    """Cancel a job where it runs, and wait until it is seen ended or not at all; return whether it ran."""
    if job is None or job.ended:
        return False
    engine.cancel(job.id)
    while (now := engine.job(note.name)) is not None and not now.ended:
        if time.monotonic() > end:
            raise Unreachable(f"the job {note.name} was asked to end and has not")
        time.sleep(TICK_S)
    return True


def settle_jobs(root: Path) -> None:
    """End, before a run folder is worked in, what an earlier client left running for it; tell what was found."""
    for note in notes(root):
        if note.ends_with_client:
            forget(root, note)
            continue
        try:
            found = end_job(note)
        except Unreachable as error:
            print(
                f"note: an earlier run handed {note.step} to {note.runner} (job {note.name}), and it cannot be asked"
                f" for now ({error}); what still works for it can put nothing here. Where it is gone for good, delete"
                f" {root / FOLDER / note.name}.json",
                file=sys.stderr,
            )
        else:
            forget(root, note)
            if found:
                print(
                    f"an earlier run left its job of {note.step} on {note.runner} ({note.name}): it is cancelled, and"
                    " has ended",
                    file=sys.stderr,
                )

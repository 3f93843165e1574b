"""Say in one clause why a job failed, from what its client, the job server and Flink wrote."""

import re
from dataclasses import dataclass

MOST = 400
"""Characters of a cause that are shown."""
OWN = re.compile(r"^(?:[\w.]+\.)?(RecipeError|WeightsError|CaptionerError|RunOver): (.+)", re.MULTILINE)
"""What a worker of ours refuses: its message says all."""
PYTHON = re.compile(r"^(?:[a-zA-Z_][\w.]*\.)?([A-Z]\w*(?:Error|Exception|Exit|Warning)): ?(.*)$", re.MULTILINE)
JAVA = re.compile(
    r"(?:Caused by: |^Exception in thread \S+ |failed in state FAILED: )([\w.$]+(?:Exception|Error)(?:: .*)?)$",
    re.MULTILINE,
)
NOISE = re.compile(r"^Pipeline \S+ failed in state \w+: ?")
KNOWN: tuple[tuple[str, str], ...] = (
    (
        r"Cannot run program .?docker|docker: not found|Cannot connect to the Docker daemon|docker\.sock",
        "workers were asked for in Docker containers, and Docker is not there or its daemon does not run; give"
        ' runner.pools or runner.environment = "loopback" or "process", or start Docker',
    ),
    (r"No space left on device", "no room left to write; make room and run the same command again"),
    (
        r"NoResourceAvailableException|Could not (?:fulfill|acquire) (?:the )?(?:resource|minimum)",
        "the engine has no free slot for it: start another TaskManager, or ask for fewer with --workers",
    ),
    (
        r"Heartbeat of TaskManager|TaskManager .{0,80}(?:no longer reachable|timed out)|"
        r"Connection unexpectedly closed by remote task manager|RemoteTransportException",
        "a TaskManager was lost",
    ),
    (
        r"Timed out while waiting for command|Still waiting for startup of environment",
        "a worker did not start: its pool's Python may lack Beam or this package; see the pool's log",
    ),
    (
        r"CANCELLED: client cancelled|SDK [Hh]arness .{0,40}disconnected|Multiplexer hanging up|"
        r"Server sendMessage\(\) failed|CANCELLED: call already cancelled",
        "a worker process ended",
    ),
    (
        r"StatusCode\.UNAVAILABLE|failed to connect to all addresses|Socket closed|StatusCode\.CANCELLED",
        "the job server went away",
    ),
)
"""What is looked for in a text -> what it means, and what to do."""


@dataclass(frozen=True)
class Cause:
    """Why a job failed. `refused`: a worker of ours said so, by that class, and saying it again changes nothing."""

    says: str
    refused: str = ""
    known: bool = False


def cause_of(text: str) -> Cause:
    """Return the cause that a text tells of: what a worker of ours refuses, what is known, else its last error."""
    if own := list(OWN.finditer(text)):
        return Cause(_short(_unwrapped(own[-1][2])), own[-1][1], known=True)
    errors = [(match[1], NOISE.sub("", match[2])) for match in PYTHON.finditer(text)]
    told = [(kind, said) for kind, said in errors if not (kind == "RuntimeError" and _is_java(said))]
    worker = "Traceback (most recent call last)" in text.partition("Error received from SDK harness")[2]
    if worker and told:
        return Cause(_short(f"{told[-1][0]}: {_unwrapped(told[-1][1])}"))
    for pattern, says in KNOWN:
        if re.search(pattern, text):
            return Cause(says, known=True)
    if found := JAVA.findall(text):
        return Cause(_short(found[-1]))
    return Cause(_short(": ".join(filter(None, errors[-1]))) if errors else "it did not say why")


def _is_java(said: str) -> bool:
    return re.match(r"(?:java|org|com)\.[\w.$]+", said) is not None


def _unwrapped(said: str) -> str:
    """Return an error's message without what Beam adds to it."""
    return re.sub(r" ?\[while running '[^']*'\]", "", said).strip()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST else f"{line[:MOST]}…"

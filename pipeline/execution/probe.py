"""Try a worker pool before a run: a pipeline of one element in its Python, which says what it is and what it sees.

Run as `python -m pipeline.execution.probe HOST:PORT FILE`; prints a line of JSON when Beam is imported, and another at
the end.
"""

import hashlib
import importlib.metadata
import json
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from manifests.store import path_of

MARK = "tessera-probe "
PACKAGES = ("manifests", "filters", "captioning", "tokenize_shards", "pipeline")


class Seen(Exception):
    """What a worker says of itself: an error's text comes back from every version of Beam, other results do not."""


def source_digest() -> str:
    """Return a digest of our packages' code, as it lies on this machine."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def itself() -> dict[str, str]:
    """Return what must be the same on both sides of a run: Python, Beam and our code."""
    return {
        "Python": ".".join(map(str, sys.version_info[:2])),
        "Beam": importlib.metadata.version("apache_beam"),
        "code of this package": source_digest(),
    }


def look(path: str) -> None:
    """Raise Seen with what this worker is, and what it finds in a file of the run folder (null: no such file)."""
    file = path_of(path)
    try:
        found: str | None = file.read_bytes().decode()
    except OSError:
        found = None
    raise Seen(MARK + json.dumps({"is": itself(), "found": found, "executable": sys.executable}))


def ask(address: str, path: str) -> dict[str, Any]:
    """Return what a worker of the pool says, or {"error": its last error}."""
    import apache_beam as beam
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import ExternalEnvironment

    from manifests.guard import Guard
    from pipeline.execution import probe  # by its own name, which a worker can import: this one is called __main__

    with Guard() as guard, beam.Pipeline(runner=FnApiRunner(default_environment=ExternalEnvironment(address))) as job:
        _ = job | beam.Create([path]) | beam.Map(probe.look)
    text = str(guard.error)
    said = re.search(re.escape(MARK) + r"(\{.*\})", text)
    return dict(json.loads(said[1])) if said else {"error": text[-4000:]}


def main() -> None:
    """Ask the pool that the arguments name."""
    import logging

    began = time.monotonic()
    logging.disable(logging.CRITICAL)
    from pipeline.execution.pool import about

    ours = None
    with suppress(ConnectionError):
        ours = about(sys.argv[1])
    print(json.dumps({"imported": time.monotonic() - began, "ours": ours is not None}), flush=True)
    print(json.dumps(ask(sys.argv[1], sys.argv[2])), flush=True)


if __name__ == "__main__":
    main()

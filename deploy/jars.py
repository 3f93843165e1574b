"""Fetch Beam's job servers and the engines with Maven, and make a jar of each that names them: `make cluster-jars`.

A pathing jar is a manifest alone: the class to run, and a Class-Path of the libraries beside it. Beam's options
`--flink_job_server_jar` and `--spark_job_server_jar` take it as they take Beam's own jar of 150 MB.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOME = ROOT / "build" / "cluster"
DRIVERS = {
    "flink": "org.apache.beam.runners.flink.FlinkJobServerDriver",
    "spark": "org.apache.beam.runners.spark.SparkJobServerDriver",
}
SAME_TIME = (1980, 1, 1, 0, 0, 0)
"""The time of a jar's entry: the same libraries give the same bytes."""


def libraries(engine: str, home: Path = HOME) -> list[Path]:
    """Return the jars of an engine, sorted; none before `fetch`."""
    return sorted((home / engine).glob("*.jar"))


def job_server_jar(engine: str, home: Path = HOME) -> Path:
    """Return where an engine's pathing jar lies."""
    return home / f"{engine}-job-server.jar"


def manifest(main: str, class_path: list[str]) -> bytes:
    """Return a jar's manifest: lines of 72 bytes at most, with their end, each next one begun by a blank."""
    out = []
    for line in ("Manifest-Version: 1.0", f"Main-Class: {main}", f"Class-Path: {' '.join(class_path)}"):
        rest = line.encode()
        out.append(rest[:70])
        out += [b" " + rest[start : start + 69] for start in range(70, len(rest), 69)]
    return b"\r\n".join(out) + b"\r\n\r\n"


def write_pathing_jar(engine: str, home: Path = HOME) -> Path:
    """Write the jar that names an engine's libraries, relative to itself, and return its path."""
    names = [f"{engine}/{path.name}" for path in libraries(engine, home)]
    path = job_server_jar(engine, home)
    entry = zipfile.ZipInfo("META-INF/MANIFEST.MF", SAME_TIME)
    fresh = path.with_suffix(".tmp")
    with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as jar:
        jar.writestr(entry, manifest(DRIVERS[engine], names))
    fresh.replace(path)
    return path


def fetch(engine: str, home: Path = HOME, seconds: float = 600.0) -> None:
    """Copy an engine's libraries from Maven's repository, into a folder that is put in place whole. Raises OSError
    where Maven is not there or fails, subprocess.TimeoutExpired."""
    if shutil.which("mvn") is None:
        raise OSError("no `mvn` on PATH; install Maven and a Java of 11 or 17")
    fresh = home / f"{engine}.tmp-{os.getpid()}"
    command = ["mvn", "-q", "-B", "-f", str(ROOT / "deploy" / "pom.xml"), f"-P{engine}"]
    command += ["dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        if done.returncode or not any(fresh.glob("*.jar")):
            raise OSError(f"Maven ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-2000:]}")
        shutil.rmtree(home / engine, ignore_errors=True)
        fresh.replace(home / engine)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def pom_digest() -> str:
    """Return the sha256 of the pom."""
    return hashlib.sha256((ROOT / "deploy" / "pom.xml").read_bytes()).hexdigest()


def is_fresh(engine: str, home: Path = HOME) -> bool:
    """Tell whether the libraries are those of the pom."""
    made_from = home / f"{engine}.pom"
    there = bool(libraries(engine, home)) and job_server_jar(engine, home).is_file() and made_from.is_file()
    return there and made_from.read_text() == pom_digest()


def main(arguments: list[str] | None = None) -> int:
    """Fetch what is not there, and print the job servers' jars."""
    parser = argparse.ArgumentParser(prog="python -m deploy.jars", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("engines", nargs="*", help=f"of {' '.join(DRIVERS)}; without any: all")
    parser.add_argument("--seconds", type=float, default=600.0, help="what Maven may take for each")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.engines) - set(DRIVERS):
        parser.error(f"no engine {sorted(unknown)}; there are {', '.join(DRIVERS)}")
    for engine in asked.engines or DRIVERS:
        if not is_fresh(engine):
            print(f"{engine}: asking Maven for Beam's job server and its libraries", flush=True)
            try:
                HOME.mkdir(parents=True, exist_ok=True)
                fetch(engine, seconds=asked.seconds)
            except (OSError, subprocess.TimeoutExpired) as error:
                print(f"{engine}: no libraries: {error}", file=sys.stderr)
                return 1
            write_pathing_jar(engine)
            (HOME / f"{engine}.pom").write_text(pom_digest())
        print(f"{engine}: {len(libraries(engine))} libraries, {job_server_jar(engine)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Read what a removal is asked to remove, and find the rows that it means."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.exclude import KINDS as LISTED
from filters.exclude import LOOKS, ListError, hosts_of, is_in_domains, normal_urls, read_list
from filters.tombstones import digests, url_digests
from manifests.files import read_json, read_table
from manifests.integrity import ASKED
from manifests.tombstones import KINDS, value_digest
from pipeline.recipe import RecipeError
from pipeline.steps import records_of

WANTED = {
    "url": "a URL, as the input has it (http and https are one, and so are hosts in upper and lower case)",
    "host": "a host name such as example.org, without scheme and path; hosts below it are meant too",
    "uid": "32 hex digits",
    "sha256": "64 hex digits: the sha256 of the stored JPEG, column sha256 of pairs/*.parquet",
    "phash": "16 hex digits, as pipeline why and dedup/top_hashes.json write it",
}
DIGITS = {"uid": 32, "sha256": 64, "phash": 16}


@dataclass(frozen=True)
class Selector:
    """One thing to remove: its kind, and its value in canonical form."""

    kind: str
    value: str

    @property
    def digest(self) -> str:
        """Return the value_sha256 of its tombstone."""
        return value_digest(self.value)


def selector(kind: str, text: str) -> Selector:
    """Return a selector in canonical form. Raises RecipeError for a value that is not of its kind."""
    value = text.strip()
    if kind in DIGITS:
        value = value.lower()
        fits = re.fullmatch(rf"[0-9a-f]{{{DIGITS[kind]}}}", value) is not None
    elif kind == "host":
        value = re.sub(r"^(\*\.|\.)", "", value)
        fits = re.fullmatch(rf"{LOOKS['host']}|localhost|\[[0-9a-fA-F:]+\]", value) is not None
        value = hosts_of(pa.array([f"http://{value}/"]))[0].as_py() if fits else value
    else:
        fits = bool(value)
        value = normal_urls(pa.array([value], pa.string()))[0].as_py() or value
    if not fits or not value:
        raise RecipeError(f"--{kind} {text[:100]!r}: wanted {WANTED[kind]}")
    return Selector(kind, value)


def listed_selectors(path: Path) -> list[Selector]:
    """Return what a list file names, one kind for all of it. Raises RecipeError, with the line, for one that cannot be read."""
    try:
        if (digits := _sha256_list(path)) is not None:
            return [selector("sha256", value) for value in digits]
        listed = read_list(path)
    except (ListError, OSError, UnicodeDecodeError, pa.ArrowException) as error:
        says = f"{path}: {error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
        raise RecipeError(f"--list {says}") from error
    if listed.kind not in KINDS:
        raise RecipeError(
            f"--list {path}: a list of {listed.kind}; wanted one of {', '.join(KINDS)}."
            " Lists of LAION's hash belong into the recipe: [filter] exclude"
        )
    values = listed.values.drop_null().unique().to_pylist()
    return [Selector(listed.kind, _text(listed.kind, value)) for value in values]


def _text(kind: str, value: Any) -> str:
    return value.hex() if kind == "uid" else f"{value:016x}" if kind == "phash" else str(value)


def _sha256_list(path: Path) -> list[str] | None:
    """Return the values of a list of sha256, which exclusion lists do not know; None for any other list."""
    if path.suffix == ".parquet":
        names = pq.read_schema(path).names
        if "sha256" not in names or set(names) & set(LISTED):
            return None
        values = pq.read_table(path, columns=["sha256"])["sha256"].drop_null().to_pylist()
        return [value.hex() if isinstance(value, bytes) else str(value) for value in values]
    lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if lines and lines[0].lower() == "sha256":
        return lines[1:]
    return lines if lines and all(re.fullmatch(r"[0-9a-fA-F]{64}", line) for line in lines) else None


def hit_by(selectors: Sequence[Selector], root: Path) -> dict[Selector, set[bytes]]:
    """Return selector -> uids of the rows that it names, from what the select, fetch and score steps have left."""
    found: dict[Selector, set[bytes]] = {one: set() for one in selectors}
    by_kind = {kind: {one.digest: one for one in selectors if one.kind == kind} for kind in KINDS}
    if any(by_kind[kind] for kind in ("url", "host", "uid")):
        for record in records_of(root, "select"):
            _in_rows(read_table(root / record.files[0].path, ["uid", "url"]), by_kind, found)
    if by_kind["sha256"]:
        for record in records_of(root, "fetch"):
            table = read_table(root / record.files[1].path, ["key", "sha256"])
            uids = pa.array([bytes.fromhex(key) for key in table["key"].to_pylist()], pa.binary(16))
            _match(digests(table["sha256"]), uids, by_kind["sha256"], found)
    if by_kind["phash"]:
        for record in records_of(root, "score"):
            table = read_table(root / record.files[0].path, ["uid", "phash"])
            values = [None if value is None else f"{value:016x}" for value in table["phash"].to_pylist()]
            _match(digests(pa.array(values, pa.string())), table["uid"], by_kind["phash"], found)
    return found


def _in_rows(table: pa.Table, by_kind: dict[str, dict[str, Selector]], found: dict[Selector, set[bytes]]) -> None:
    uids = {bytes.fromhex(one.value): one for one in by_kind["uid"].values()}
    if uids:
        for uid in table["uid"].filter(pc.is_in(table["uid"], value_set=pa.array(sorted(uids), table["uid"].type))).to_pylist():
            found[uids[uid]].add(uid)
    if by_kind["url"]:
        _match(url_digests(table["url"].combine_chunks()), table["uid"], by_kind["url"], found)
    if hosts := {one.value: one for one in by_kind["host"].values()}:
        named = hosts_of(table["url"].combine_chunks())
        hit = pc.fill_null(is_in_domains(named, lambda domains: pc.is_in(domains, value_set=pa.array(sorted(hosts)))), False)
        for host, uid in zip(named.filter(hit).to_pylist(), table["uid"].filter(hit).to_pylist(), strict=True):
            labels = host.split(".")
            for one in (hosts.get(".".join(labels[start:])) for start in range(len(labels))):
                found[one].add(uid) if one and uid else None


def _match(values: pa.Array, uids: Any, wanted: dict[str, Selector], found: dict[Selector, set[bytes]]) -> None:
    hit = pc.fill_null(pc.is_in(values, value_set=pa.array(sorted(wanted), pa.string())), False)
    for value, uid in zip(values.filter(hit).to_pylist(), uids.filter(hit).to_pylist(), strict=True):
        if uid:
            found[wanted[value]].add(uid)


def gather(options: Mapping[str, Iterable[str]], lists: Iterable[str]) -> list[Selector]:
    """Return every selector that the command line names, each once. Raises RecipeError for a bad one, or none at all."""
    found = [selector(kind, value) for kind, values in options.items() for value in values]
    found += [one for path in lists for one in listed_selectors(Path(path))]
    return list(dict.fromkeys(found))


def asked_for(root: Path) -> tuple[list[Selector], bool]:
    """Return what an unfinished removal of this run was asked for, and whether twins are promoted; nothing where there is none."""
    try:
        entry = read_json(root / ASKED)
    except FileNotFoundError:
        return [], False
    return [Selector(str(kind), str(value)) for kind, value in entry["selectors"]], bool(entry["promote"])

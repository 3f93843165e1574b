"""Read what a removal is asked to remove, and find the rows that it means."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from filters.digest_lists import DigestLists
from filters.exclude import KINDS as LISTED
from filters.exclude import (
    KindError,
    Listed,
    ListError,
    csv_records,
    is_in_domains,
    read_list,
    require_regular,
)
from filters.fetch.url import UrlFault, normalise
from filters.tombstones import digests
from filters.url_forms import BARE, host_forms, named_hosts, place_forms
from manifests.aside import PAIRS
from manifests.files import FormatError, open_table, parsing, read_json, read_parquet, read_schema, read_table
from manifests.in_threads import each
from manifests.journal import records_of
from manifests.schema import COLUMNS, DIGESTS
from manifests.store import is_remote, local_copy, path_of
from manifests.tombstones import KINDS, value_digest
from manifests.transaction import ASKED
from pipeline.execution.redact_aside import SCORES, files_aside, uids_of
from pipeline.execution.redaction import domains
from pipeline.recipes.schema import RecipeError

WANTED = {
    "url": "a URL with its scheme, such as http://example.org/a.jpg, as the input has it",
    "host": "a host name such as example.org, without scheme, port and path; hosts below it are meant too",
    "uid": "32 hex digits",
    "sha256": "64 hex digits: the sha256 of the stored JPEG, column sha256 of pairs/*.parquet",
    "phash": "16 hex digits, as pipeline why and dedup/top_hashes.json write it",
    "md5": "32 hex digits: the MD5 of the file as it was received, column md5 of pairs/*.parquet",
    "sha1": "40 hex digits: the SHA-1 of the file as it was received, column sha1 of pairs/*.parquet",
    "source_sha256": "64 hex digits: the SHA-256 of the file as it was received; --sha256 is of the stored JPEG",
    "pdq": "64 hex digits: the PDQ hash of the picture, column pdq of pairs/*.parquet",
}
DIGITS = {"uid": 32, "sha256": 64, "phash": 16, "md5": 32, "sha1": 40, "source_sha256": 64, "pdq": 64}
PICTURES = ("sha256", "phash", *DIGESTS)
"""Kinds that name a picture: rows of its URL are meant too."""
LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST = rf"(?=.{{1,253}}$){LABEL}(?:\.{LABEL})+|localhost|\[[0-9a-f:.]+\]"
"""A host in canonical form: of two labels and more, since hosts below it go too; or an address in brackets."""
WEB = r"(?i)https?://(?:[^/?#@\s]*@)?(?P<host>\[[^\]\s]*\]|[^\s/?#@:\[\]]+)(?::[0-9]*)?(?:[/?#].*)?"
OTHER = r"(?i)(?!https?:)[a-z][a-z0-9+.-]*://\S.*"
"""URLs: of the web, where a host can be looked at, and others that an input may hold."""


class UnreadableRequestError(RecipeError):
    """What an unfinished removal was asked for cannot be read: its selectors are to be given again."""


@dataclass(frozen=True)
class Selector:
    """One thing to remove: its kind, and its value in canonical form."""

    kind: str
    value: str

    @property
    def digest(self) -> str:
        """Return the value_sha256 of its tombstone."""
        return value_digest(self.value)


def selector(kind: str, text: str, paths: bool = False) -> Selector:
    """Return a selector in canonical form. Raises RecipeError for a value that is not of its kind.

    `paths`: the run's input has paths of pictures instead of URLs, so that any text may be one.
    """
    value = text.strip()
    if kind in DIGITS:
        canonical = value.lower() if re.fullmatch(rf"[0-9a-fA-F]{{{DIGITS[kind]}}}", value) else ""
    elif kind == "host":
        canonical = _host(re.sub(r"^(\*\.|\.)", "", value))
    else:
        canonical = _url(value, paths)
    if not canonical:
        raise RecipeError(f"--{kind.replace('_', '-')} {text[:100]!r}: wanted {WANTED[kind]}")
    return Selector(kind, canonical)


def _host(value: str) -> str:
    """Return a host in canonical form, or nothing for what is none."""
    if re.search(r"[\s/?#@,\\]|:(?![^\[]*\])", value) and not re.fullmatch(BARE, value):
        return ""
    host = named_hosts(pa.array([value]))[0][0].as_py() or ""
    return host if re.fullmatch(HOST, host) else ""


def _url(value: str, paths: bool) -> str:
    """Return a URL as tombstones compare it, or nothing for what is none."""
    form = str(place_forms(pa.array([value], pa.string())).now[0].as_py())
    return form if paths or _is_web(value) or re.fullmatch(OTHER, value) else ""


def _is_web(value: str) -> bool:
    """Tell whether a value is a URL of the web: one that may be asked for, or that only cannot be (too long, say)."""
    try:
        return bool(normalise(value))
    except UrlFault:
        found = re.fullmatch(WEB, value)
    # a name of one label may be a host of a URL
    return bool(found and (_host(found["host"]) or _host(f"{found['host']}.test")))


def _of_list(path: Path) -> list[Selector]:
    """Return what a list names that may lie in a store, as that of a recheck does. Raises RecipeError."""
    if not is_remote(path):
        return listed_selectors(path)
    try:
        with local_copy(path) as local:
            return listed_selectors(local)
    except OSError as error:
        raise RecipeError(f"--list {path}: {error.strerror or error}") from error
    except RecipeError as error:
        raise RecipeError(str(error).replace(str(local), str(path))) from error


def listed_selectors(path: Path) -> list[Selector]:
    """Return what a list file names, one kind for all of it. Raises RecipeError, with the line, for one that cannot be
    read."""
    try:
        hashes = _sha256_list(path)
        listed = None if hashes is not None else read_list(path)
    except (ListError, OSError, UnicodeDecodeError, FormatError) as error:
        raise RecipeError(f"--list {_list_fault(path, error)}") from error
    if listed and listed.kind not in KINDS:
        raise RecipeError(
            f"--list {path}: a list of {listed.kind}; wanted one of {', '.join(KINDS)}."
            " Lists of LAION's hash belong into the recipe: [filter] exclude"
        )
    kind, values = (listed.kind, listed.values.drop_null().unique().to_pylist()) if listed else ("sha256", hashes or [])
    if not values:
        raise RecipeError(f"--list {path}: names nothing; wanted values of one kind: {', '.join(KINDS)}")
    wrong = [value for value in values if kind == "host" and not re.fullmatch(HOST, value)]
    if wrong:
        raise RecipeError(f"--list {path}: {wrong[0][:80]!r} is no host; wanted {WANTED['host']}")
    return [Selector(kind, _text(kind, value)) for value in values]


def _list_fault(path: Path, error: Exception) -> str:
    """Return the message of a list that cannot be read; it names the file."""
    if isinstance(error, KindError):
        return (
            f"{error.says}; wanted one column of {', '.join(KINDS)}, or lines of one kind, whose name may be the first"
            " line"
        )
    if isinstance(error, ListError | FormatError):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        return f"{path}: not UTF-8 text ({error})"
    says = error.strerror if isinstance(error, OSError) else None
    return f"{path}: {says or str(error).splitlines()[0]}"


def _text(kind: str, value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else f"{value:016x}" if kind == "phash" else str(value)


def _sha256_list(path: Path) -> list[str] | None:
    """Return the values of a list of sha256, which exclusion lists do not know; None for any other list."""
    require_regular(path)
    if path.suffix == ".parquet":
        with open_table(path) as file:
            names = file.schema_arrow.names
        if not _is_of_sha256(path, names):
            return None
        cells = read_parquet(path, ["sha256"])["sha256"].drop_null().to_pylist()
        return _sha256(
            path, enumerate((cell.hex() if isinstance(cell, bytes) else str(cell) for cell in cells), 1), "row"
        )
    if path.suffix in (".csv", ".tsv"):
        rows = list(csv_records(path))
        names = [name.strip().lower() for name in rows[0][1]] if rows else []
        if not _is_of_sha256(path, names):
            return None
        place = names.index("sha256")
        return _sha256(path, ((number, row[place] if place < len(row) else "") for number, row in rows[1:]), "line")
    text = [(number, line.strip()) for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1)]
    lines = [(number, line) for number, line in text if line and not line.startswith("#")]
    if lines and lines[0][1].lower() == "sha256":
        return _sha256(path, lines[1:], "line")
    all_fit = lines and all(re.fullmatch(r"[0-9a-fA-F]{64}", line) for _, line in lines)
    return _sha256(path, lines, "line") if all_fit else None


def _is_of_sha256(path: Path, names: Sequence[str]) -> bool:
    """Tell whether a table is a list of sha256. Raises ListError for one that may be another list too."""
    others = [name for name in names if name in LISTED]
    if "sha256" in names and others:
        raise ListError(f"{path}: columns sha256 and {', '.join(others)}; a list holds one kind")
    return "sha256" in names


def _sha256(path: Path, lines: Iterable[tuple[int, str]], place: str) -> list[str]:
    values: dict[str, None] = {}
    for number, text in lines:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", text.strip()):
            raise ListError(f"{path}: {place} {number}: {text[:80]!r} is no sha256 (64 hex digits)")
        values[text.strip().lower()] = None
    return list(values)


def hit_by(selectors: Sequence[Selector], root: Path) -> dict[Selector, set[bytes]]:
    """Return selector -> uids of the rows that it names, from what select, fetch and score have left, and from what was
    set aside."""
    hits: dict[Selector, set[bytes]] = {chosen: set() for chosen in selectors}
    by_kind = {kind: {chosen.digest: chosen for chosen in selectors if chosen.kind == kind} for kind in KINDS}
    if any(by_kind[kind] for kind in ("url", "host", "uid")):
        for table in each(root, partial(read_table, columns=["uid", "url"]), _selected(root)):
            _in_rows(table, by_kind, hits)
        for path in files_aside(root, PAIRS):
            table = read_parquet(path, ["key", "url"])
            _in_rows(pa.table({"uid": uids_of(table["key"]), "url": table["url"]}), by_kind, hits)
    of_files = [kind for kind in ("sha256", *DIGESTS) if by_kind[kind]]
    pairs = (root / record.files[1].path for record in records_of(root, "fetch"))
    every = chain(pairs, files_aside(root, PAIRS)) if of_files else ()
    for table in each(root, partial(_with_digests, kinds=of_files), every):
        for kind in table.schema.names[1:]:
            _match(digests(table[kind]), uids_of(table["key"]), by_kind[kind], hits)
    if by_kind["phash"]:
        scores = (root / record.files[0].path for record in records_of(root, "score"))
        every = chain(scores, files_aside(root, SCORES))
        for table in each(root, partial(read_table, columns=["uid", "phash"]), every):
            values = [None if value is None else f"{value:016x}" for value in table["phash"].to_pylist()]
            _match(digests(pa.array(values, pa.string())), table["uid"], by_kind["phash"], hits)
    _with_their_urls(root, hits)
    return hits


def _with_digests(path: Path, kinds: Sequence[str]) -> pa.Table:
    """Return the key and the digests of these kinds of a table of pairs; shards of before have none."""
    names = read_schema(path).names
    return read_table(path, ["key", *(kind for kind in kinds if kind in names)])


def _selected(root: Path) -> list[Path]:
    return [root / record.files[0].path for record in records_of(root, "select")]


def _with_their_urls(root: Path, hits: dict[Selector, set[bytes]]) -> None:
    """Add to what selectors of pictures name every row of the same URLs, however spelt: those too that were never
    fetched."""
    of_pictures = {chosen: uids for chosen, uids in hits.items() if chosen.kind in PICTURES and uids}
    named: dict[Selector, set[str]] = {chosen: set() for chosen in of_pictures}
    for rows in (_forms_of, _rows_of_forms) if of_pictures else ():
        for table in each(root, partial(read_table, columns=["uid", "url"]), _selected(root)):
            rows(table["uid"], place_forms(table["url"].combine_chunks()).now, of_pictures, named)


def _forms_of(uids: Any, forms: pa.Array, hits: dict[Selector, set[bytes]], named: dict[Selector, set[str]]) -> None:
    for chosen, of in hits.items():
        mine = pc.fill_null(pc.is_in(uids, value_set=pa.array(sorted(of), uids.type)), False)
        named[chosen].update(forms.filter(mine).drop_null().to_pylist())


def _rows_of_forms(
    uids: Any, forms: pa.Array, hits: dict[Selector, set[bytes]], named: dict[Selector, set[str]]
) -> None:
    for chosen, wanted in named.items():
        mine = pc.fill_null(pc.is_in(forms, value_set=pa.array(sorted(wanted), pa.string())), False)
        hits[chosen].update(uids.filter(mine).drop_null().to_pylist())


def within(selectors: Sequence[Selector], radius: int, root: Path) -> list[Selector]:
    """Return the selectors, and beside those of PDQ hashes one for each hash of this run within `radius` bits of
    them."""
    hashes = [chosen.value for chosen in selectors if chosen.kind == "pdq"]
    if not radius or not hashes:
        return list(selectors)
    values = pa.array([bytes.fromhex(one) for one in hashes], COLUMNS["pdq"].type)
    named = DigestLists((Listed("pdq", "", values, radius),))
    paths = [root / record.files[1].path for record in records_of(root, "fetch")]
    tables = (read_table(path, ["pdq"]) for path in paths if "pdq" in read_schema(path).names)
    found = sorted({hit.value for table in tables for _, hit in named.hits(table)})
    return list(dict.fromkeys([*selectors, *(Selector("pdq", value) for value in found)]))


def _in_rows(table: pa.Table, by_kind: dict[str, dict[str, Selector]], hits: dict[Selector, set[bytes]]) -> None:
    uids = {bytes.fromhex(chosen.value): chosen for chosen in by_kind["uid"].values()}
    if uids:
        for uid in (
            table["uid"].filter(pc.is_in(table["uid"], value_set=pa.array(sorted(uids), table["uid"].type))).to_pylist()
        ):
            hits[uids[uid]].add(uid)
    if by_kind["url"]:
        for forms in place_forms(table["url"].combine_chunks()).each:
            _match(digests(forms), table["uid"], by_kind["url"], hits)
    if hosts := {chosen.value: chosen for chosen in by_kind["host"].values()}:
        among = partial(pc.is_in, value_set=pa.array(sorted(hosts)))
        for named in host_forms(table["url"].combine_chunks()).each:
            hit = pc.fill_null(is_in_domains(named, among), False)
            for host, uid in zip(named.filter(hit).to_pylist(), table["uid"].filter(hit).to_pylist(), strict=True):
                for chosen in (hosts.get(domain) for domain in domains(host)):
                    hits[chosen].add(uid) if chosen and uid else None


def _match(values: pa.Array, uids: Any, by_digest: dict[str, Selector], hits: dict[Selector, set[bytes]]) -> None:
    hit = pc.fill_null(pc.is_in(values, value_set=pa.array(sorted(by_digest), pa.string())), False)
    for value, uid in zip(values.filter(hit).to_pylist(), uids.filter(hit).to_pylist(), strict=True):
        if uid:
            hits[by_digest[value]].add(uid)


def gather(options: Mapping[str, Iterable[str]], lists: Iterable[str], paths: bool = False) -> list[Selector]:
    """Return every selector that the command line names, each once. Raises RecipeError for a bad one; `paths` as for
    `selector`."""
    selectors = [selector(kind, value, paths) for kind, values in options.items() for value in values]
    selectors += [listed for name in lists for listed in _of_list(path_of(name))]
    return list(dict.fromkeys(selectors))


def asked_for(root: Path) -> tuple[list[Selector], bool]:
    """Return what an unfinished removal of this run was asked for, and whether twins are promoted; nothing where there
    is none.

    Raises UnreadableRequestError.
    """
    try:
        entry = read_json(root / ASKED)
        with parsing(root / ASKED, "not the note of a removal"):
            return [Selector(str(kind), str(value)) for kind, value in entry["selectors"]], bool(entry["promote"])
    except FileNotFoundError:
        return [], False
    except (OSError, FormatError) as error:
        raise UnreadableRequestError(
            f"{root / ASKED}, which says what an interrupted removal was asked for, cannot be read"
        ) from error

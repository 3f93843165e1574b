"""Read exclusion lists (takedowns, opt-outs, LAION's removals) and tell which rows they name."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from filters.fetch.url import UrlFault, normalise
from filters.url_forms import BARE, Forms, named_hosts, url_forms
from manifests.extras import need
from manifests.schema import COLUMNS, DIGESTS

KINDS = ("uid", "url", "host", "hash", "phash", *DIGESTS)
OF_ROWS = ("uid", "url", "host", "hash")
"""Kinds that metadata alone can judge: their rows are dropped before anything is fetched."""
TYPES: dict[str, pa.DataType] = {
    "uid": pa.binary(16),
    "url": pa.string(),
    "host": pa.string(),
    "hash": pa.int64(),
    "phash": pa.uint64(),
    **{name: COLUMNS[name].type for name in DIGESTS},
}
LOOKS = {
    "url": r"(?i)https?:[\\/]+[^\s/\\?#]+\S*",
    "uid": r"[0-9a-fA-F]{32}",
    "phash": r"[0-9a-fA-F]{16}",
    **{name: rf"[0-9a-fA-F]{{{2 * COLUMNS[name].type.byte_width}}}" for name in DIGESTS},
    "hash": r"-?[0-9]{1,19}",
    "host": rf"[^\s/?#@:,]+[.\u3002\uff0e\uff61][^\s/?#@:,]+|{BARE}",
}
"""What a line of each kind looks like; of several that fit, the user must say which is meant."""


class ListError(ValueError):
    """A list cannot be read as what it should be; the message names file and line."""


class KindError(ListError):
    """The kind of a list cannot be told; `says` is the message without what a recipe may say of it."""

    def __init__(self, says: str, wanted: str) -> None:
        super().__init__(f"{says}; {wanted}")
        self.says = says


@dataclass(frozen=True)
class Listed:
    """One list: its kind, the name of its file, and its values in canonical form; `radius` in bits counts for
    perceptual hashes alone.

    `before`: of URLs and hosts the forms that lists had before, where they are others: what they named stays named.
    """

    kind: str
    name: str
    values: pa.Array
    radius: int = 0
    before: pa.Array | None = None


@dataclass(frozen=True)
class Exclusions:
    """All lists that rows are held against by what the input says of them."""

    lists: tuple[Listed, ...]

    @cached_property
    def by_kind(self) -> dict[str, pa.Array]:
        """Return kind -> distinct values of all its lists, in every form."""
        kinds = {one.kind for one in self.lists} & set(OF_ROWS)
        return {
            kind: pa.concat_arrays([values for one in self.lists if one.kind == kind for values in _all(one)])
            .drop_null()
            .unique()
            for kind in sorted(kinds)
        }

    def hits(self, columns: Mapping[str, pa.Array]) -> pa.BooleanArray:
        """Tell of each row whether a list names it, from `uid`, `url`, `text` and, where the input has it, `hash`.
        Never null."""
        rows = len(columns["uid"])
        hit = pa.array(np.zeros(rows, np.bool_))
        forms: Forms | None = None
        for kind, values in self.by_kind.items():
            if kind in ("url", "host"):
                forms = forms or url_forms(columns["url"])
                found = _is_in_hosts(forms, values) if kind == "host" else forms.either(_among(values))
            else:
                found = pc.is_in(_of_rows(kind, columns), value_set=values)
            hit = pc.or_(hit, pc.fill_null(found, False))
        return hit


def _all(listed: Listed) -> list[pa.Array]:
    return [listed.values] if listed.before is None else [listed.values, listed.before]


def _of_rows(kind: str, columns: Mapping[str, pa.Array]) -> pa.Array:
    if kind == "hash":
        computed = laion_hashes(columns["url"], columns.get("text"))
        return pc.coalesce(columns["hash"], computed) if "hash" in columns else computed
    return columns[kind]


def laion_hashes(url: pa.Array, text: pa.Array | None) -> pa.Array:
    """Return LAION's `hash` of each row, int64: the first half of MurmurHash3 x64/128 of utf8(URL + TEXT), seed 0.

    The formula is that of LAION-5B-WatermarkDetection's inference.py; null where there is no URL.
    """
    hash64 = need("mmh3", "lists").hash64
    texts = [None] * len(url) if text is None else text.to_pylist()
    found = [
        None if one is None else hash64((one + (two or "")).encode())[0]
        for one, two in zip(url.to_pylist(), texts, strict=True)
    ]
    return pa.array(found, pa.int64())


def _is_in_hosts(forms: Forms, listed: pa.Array) -> pa.BooleanArray:
    """Tell whether a URL's host is listed, or lies below a listed one."""
    return forms.hosts.either(lambda hosts: is_in_domains(hosts, _among(listed)))


def _among(values: pa.Array) -> Callable[[pa.Array], pa.Array]:
    return partial(pc.is_in, value_set=values)


def is_in_domains(hosts: pa.Array, among: Callable[[pa.Array], pa.Array]) -> pa.BooleanArray:
    """Tell whether `among` says so of a host, or of a domain above it; each distinct one is asked once."""
    coded = hosts.dictionary_encode()
    domain = coded.dictionary
    hit = among(domain)
    while len(domain) and pc.any(pc.match_substring(domain, ".")).as_py():
        domain = pc.replace_substring_regex(domain, r"^[^.]*\.?", "")
        hit = pc.or_(hit, among(domain))
    return hit.take(coded.indices)


def read_list(path: Path, kind: str | None = None, radius: int = 0) -> Listed:
    """Read one list: Parquet, CSV or TSV with a column named after its kind, or text with one value a line and `#`
    comments.

    Raises ListError, with the line where there is one, for values that are not of the kind, or a kind that cannot be
    told.
    """
    if kind is not None and kind not in KINDS:
        raise ListError(f"{path}: kind {kind!r}; kinds are {', '.join(KINDS)}")
    try:
        require_regular(path)
        found = _read_parquet(path, kind) if path.suffix == ".parquet" else _read_text(path, kind)
    except OSError as error:
        raise ListError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ListError(f"{path}: not UTF-8 text ({error})") from error
    except (pa.ArrowException, csv.Error) as error:
        raise ListError(f"{path}: {str(error).splitlines()[0]}") from error
    kind, values = found
    if kind not in ("url", "host"):
        return Listed(kind, path.name, values, radius)
    forms = _forms(kind, values)
    return Listed(kind, path.name, forms.now, radius, None if forms.before is forms.now else forms.before)


def require_regular(path: Path) -> None:
    """Raise ListError for a pipe, socket or device: it may never end, and gives what it has only once; lists are read
    twice."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ListError(f"{path}: a pipe or device, wanted a regular file: write the list into one")


def csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its first line, cells) of each record of a CSV or TSV file; a cell in quotes may hold line ends.

    Empty lines and records that start with `#` are passed over. Raises ListError for quotes that do not pair.
    """
    delimiter = "\t" if path.suffix == ".tsv" else ","
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = enumerate(file, 1)
        for number, line in lines:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            whole = chain([line], (more for _, more in lines))
            try:
                yield number, next(csv.reader(whole, delimiter=delimiter, strict=True))
            except csv.Error as error:
                raise ListError(f"{path}: line {number}: no record of CSV ({error})") from error


def _read_parquet(path: Path, kind: str | None) -> tuple[str, pa.Array]:
    names = pq.read_schema(path).names
    kind, column = _column(path, names, kind)
    array = pq.read_table(path, columns=[names[column]])[0].combine_chunks()
    array = array.drop_null()
    if array.type == TYPES[kind] and kind in ("uid", "hash", "phash", *DIGESTS):
        return kind, array
    if kind in ("uid", *DIGESTS) and pa.types.is_binary(array.type):
        return kind, array.cast(TYPES[kind])
    return kind, _values(path, kind, enumerate(array.cast(pa.string()).to_pylist(), 1), "row")


def _column(path: Path, names: Sequence[str], kind: str | None) -> tuple[str, int]:
    """Return (kind, place) of the column that holds the list."""
    lower = [name.strip().lower() for name in names]
    found = [name for name in (KINDS if kind is None else (kind,)) if name in lower]
    if len(found) == 1:
        return found[0], lower.index(found[0])
    if not found:
        raise KindError(
            f"{path}: its columns are {', '.join(names)}", f"wanted a column named {kind or ', '.join(KINDS)}"
        )
    raise KindError(
        f"{path}: columns {' and '.join(found)}", f'say which one is meant: {{ file = "…", kind = "{found[0]}" }}'
    )


def _read_text(path: Path, kind: str | None) -> tuple[str, pa.Array]:
    if path.suffix in (".csv", ".tsv"):
        return _read_csv(path, kind)
    lines = list(_lines(path))
    if not lines:
        return kind or "url", pa.array([], TYPES[kind or "url"])
    if lines[0][1].lower() in KINDS and kind in (None, lines[0][1].lower()):
        kind = lines.pop(0)[1].lower()
    kind = kind or _told(path, lines)
    return kind, _values(path, kind, lines)


def _read_csv(path: Path, kind: str | None) -> tuple[str, pa.Array]:
    rows = list(csv_records(path))
    if not rows:
        if kind is None:
            raise KindError(f"{path}: line 1: no header", f"wanted one with a column named {', '.join(KINDS)}")
        return kind, pa.array([], TYPES[kind])
    kind, column = _column(path, rows[0][1], kind)
    return kind, _values(
        path, kind, [(number, row[column] if column < len(row) else "") for number, row in rows[1:]], cells=True
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of what is neither empty nor a comment; a comment starts a line or follows white
    space."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if text := re.sub(r"(^|\s)#.*", "", line.rstrip("\r\n")).strip():
                yield number, text


def _told(path: Path, lines: Sequence[tuple[int, str]]) -> str:
    """Return the kind that every line looks like."""
    fits = [kind for kind, looks in LOOKS.items() if all(re.fullmatch(looks, text) for _, text in lines)]
    if len(fits) == 1:
        return fits[0]
    number, text = lines[0]
    first = [kind for kind, looks in LOOKS.items() if re.fullmatch(looks, text)]
    if not fits and first:
        number, text = next((n, t) for n, t in lines if not re.fullmatch(LOOKS[first[0]], t))
        raise ListError(f"{path}: line {number}: {text[:80]!r} is no {first[0]}, as the lines before are")
    what = f"may be {' or '.join(fits)}" if fits else "is of no kind that can be told"
    wanted = f'say which of {", ".join(KINDS)}: its first line, or {{ file = "…", kind = "…" }}'
    raise KindError(f"{path}: line {number}: {text[:80]!r} {what}", wanted)


def _values(
    path: Path,
    kind: str,
    lines: Iterator[tuple[int, str]] | Sequence[tuple[int, str]],
    place: str = "line",
    cells: bool = False,
) -> pa.Array:
    """Return the values, URLs and hosts as they are written. Raises ListError at the first that is not of its kind.

    `cells`: the values are cells of a table, in which a URL may hold blanks.
    """
    values: list[Any] = []
    for number, text in lines:
        text = text.strip()
        if not re.fullmatch(LOOKS[kind], text) and not (
            (kind == "host" and re.fullmatch(rf"localhost|\[?(?:[0-9a-fA-F:]+|{BARE})\]?", text))
            or (kind == "url" and (cells or place == "row") and _is_url(text))
        ):
            raise ListError(f"{path}: {place} {number}: {text[:80]!r} is no {kind}")
        values.append(
            bytes.fromhex(text)
            if kind in ("uid", *DIGESTS)
            else int(text, 16 if kind == "phash" else 10)
            if "hash" in kind
            else text
        )
    if kind == "hash" and any(not -(1 << 63) <= value < 1 << 63 for value in values):
        raise ListError(f"{path}: a hash is outside 64 signed bits")
    return pa.array(values, TYPES[kind])


def _is_url(text: str) -> bool:
    try:
        return bool(normalise(text))
    except UrlFault:
        return False


def _forms(kind: str, values: pa.Array) -> Forms:
    """Return the forms of listed URLs or hosts."""
    return url_forms(values) if kind == "url" else named_hosts(pc.replace_substring_regex(values, r"^(\*\.|\.)", ""))

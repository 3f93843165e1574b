"""Identify a pair by what it says, and draw every random choice from that identity."""

import binascii
import hashlib
from functools import cached_property

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

HASH_SPAN = 1 << 64
UID = pa.binary(16)


def uid_of(url: str | None, text: str | None) -> bytes:
    """Return the 16-byte uid of a pair: md5 of utf8(URL) + newline + utf8(TEXT, or nothing). Stable across mirrors."""
    return hashlib.md5(f"{url or ''}\n{text or ''}".encode(), usedforsecurity=False).digest()


def uid_hash(uid: bytes, seed: int) -> int:
    """Return the pair's draw in [0, 2**64) under `seed`: the head of md5(hex uid + ':' + seed)."""
    return int(hashlib.md5(f"{uid.hex()}:{seed}".encode(), usedforsecurity=False).hexdigest()[:16], 16)


def uid_hash_sql(column: str, seed: int) -> str:
    """Return the DuckDB expression of `uid_hash` over a 16-byte column, as UBIGINT."""
    return f"('0x' || substr(md5(lower(hex({column})) || ':{int(seed)}'), 1, 16))::UBIGINT"


def fraction_bound(share: float) -> int:
    """Return the bound below which a `uid_hash` belongs to a sample of this share, 0..1."""
    return min(HASH_SPAN, max(0, int(share * HASH_SPAN)))


class Uids:
    """Uids and draws of many rows at once, in a DuckDB of one thread."""

    def __init__(self, seed: int = 0) -> None:
        """`seed` is that of the draws."""
        self.seed = seed

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(config={"threads": 1})

    def of(self, url: pa.Array, text: pa.Array | None, bound: int | None = None) -> tuple[pa.Array, pa.Array | None]:
        """Return (`uid_of` each row as binary(16), with a bound which rows' `uid_hash` is below it)."""
        text = pa.nulls(len(url), pa.string()) if text is None else text
        pairs = pa.table({"pair": pc.binary_join_element_wise(url, text, "\n", null_handling="replace")})
        draw = f"('0x' || substr(md5(hex || ':{int(self.seed)}'), 1, 16))::UBIGINT"
        chosen = "" if bound is None else f", {draw} < {int(bound)}::UHUGEINT AS chosen"
        self._connection.register("pairs", pairs)
        found = self._connection.execute(
            f"SELECT hex{chosen} FROM (SELECT md5(pair) AS hex FROM pairs)"
        ).to_arrow_table()
        self._connection.unregister("pairs")
        return _unhex(found["hex"]), None if bound is None else found["chosen"].combine_chunks()


def _unhex(column: pa.ChunkedArray) -> pa.Array:
    """Return texts of 32 hex digits, none of them null, as binary(16)."""
    digits = b"".join(
        chunk.buffers()[2][32 * chunk.offset : 32 * (chunk.offset + len(chunk))] for chunk in column.chunks
    )
    return pa.FixedSizeBinaryArray.from_buffers(UID, len(column), [None, pa.py_buffer(binascii.unhexlify(digits))])

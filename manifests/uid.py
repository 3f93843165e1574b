"""Identify a pair by what it says, and draw every random choice from that identity."""

import hashlib
from functools import cached_property

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from manifests.query import MEMORY_LIMIT, in_memory

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

    def __init__(self, seed: int = 0, memory_limit: str = MEMORY_LIMIT) -> None:
        """`seed` is that of the draws, `memory_limit` what DuckDB may hold."""
        self.seed, self.memory_limit = seed, memory_limit

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return in_memory(self.memory_limit)

    def of(self, url: pa.Array, text: pa.Array | None, bound: int | None = None) -> tuple[pa.Array, pa.Array | None]:
        """Return (`uid_of` each row as binary(16), with a bound which rows' `uid_hash` is below it)."""
        text = pa.nulls(len(url), pa.string()) if text is None else text
        pairs = pa.table({"pair": pc.binary_join_element_wise(url, text, "\n", null_handling="replace")})
        uid = _plain(self._ask("SELECT md5_number(pair) AS uid FROM rows", pairs)["uid"])
        if bound is None:
            return uid, None
        drawn = f"SELECT ({uid_hash_sql('uid', self.seed)} < {int(bound)}::UHUGEINT)::UTINYINT AS chosen FROM rows"
        return uid, self._ask(drawn, pa.table({"uid": uid}))["chosen"].combine_chunks().cast(pa.bool_())

    def _ask(self, query: str, rows: pa.Table) -> pa.Table:
        self._connection.register("rows", rows)
        try:
            return self._connection.execute(query).to_arrow_table()
        finally:
            self._connection.unregister("rows")


def _plain(numbers: pa.ChunkedArray) -> pa.Array:
    """Return DuckDB's md5_number as binary(16): Arrow gets it as 16 bytes, in the order of the digest."""
    return pa.concat_arrays([chunk.storage for chunk in numbers.chunks]) if numbers.chunks else pa.array([], UID)

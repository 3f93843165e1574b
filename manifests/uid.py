"""Identify a pair by what it says, and draw every random choice from that identity."""

import hashlib

UID_SQL = "unhex(md5(encode(coalesce(url, '') || chr(10) || coalesce(text, ''))))"
"""DuckDB expression of `uid_of` over columns `url` and `text`."""
HASH_SPAN = 1 << 64


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

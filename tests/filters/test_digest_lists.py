"""Lists of digests: which pictures they name, one at a time and a table at once, and none is missed within a radius."""

import hashlib

import numpy as np
import pyarrow as pa

from filters.digest_lists import DigestLists, Hit
from filters.exclude import Listed
from manifests.schema import COLUMNS
from manifests.tombstones import TABLE, Tombstones, value_digest

MD5 = [hashlib.md5(bytes([n])).hexdigest() for n in range(100)]


def listed(kind: str, digits: list[str], name: str = "a.txt", radius: int = 0) -> Listed:
    return Listed(kind, name, pa.array([bytes.fromhex(one) for one in digits], COLUMNS[kind].type), radius)


def tombstones(kind: str, value: str) -> Tombstones:
    row = {**dict.fromkeys(TABLE.names), "kind": kind, "value_sha256": value_digest(value)}
    return Tombstones(pa.Table.from_pylist([row], schema=TABLE))


def flipped(digits: str, *bits: int) -> str:
    return f"{int(digits, 16) ^ sum(1 << bit for bit in bits):064x}"


def test_a_digest_is_named_by_the_first_list_that_holds_it() -> None:
    lists = DigestLists.of(
        [listed("md5", MD5[:50]), listed("md5", MD5[40:60], "b.csv")], Tombstones(TABLE.empty_table())
    )
    found = [lists.hit("md5", one) for one in MD5]
    assert [hit.list for hit in found[:60] if hit] == ["a.txt"] * 50 + ["b.csv"] * 10
    assert found[60:] == [None] * 40
    assert lists.hit("md5", None) is None
    assert lists.kinds == ("md5",)


def test_values_that_begin_alike_are_not_taken_for_one_another() -> None:
    one, other = "ff" * 8 + "00" * 8, "ff" * 8 + "01" * 8
    lists = DigestLists((listed("md5", [one]),))
    assert lists.hit("md5", one) == Hit("md5", one, "a.txt")
    assert lists.hit("md5", other) is None


def test_a_tombstone_names_without_a_list_and_says_so() -> None:
    lists = DigestLists.of([], tombstones("sha1", "ab" * 20))
    assert bool(lists)
    assert lists.hit("sha1", "ab" * 20) == Hit("sha1", "ab" * 20, None)
    assert lists.hit("sha1", "ac" * 20) is None
    assert lists.hit("md5", "ab" * 16) is None
    assert Hit("sha1", "ab" * 20, None).receipt == ("list of hashes", f"sha1 {value_digest('ab' * 20)}")


def test_other_lists_are_not_of_digests() -> None:
    other = Listed("host", "hosts.txt", pa.array(["a.test"]))
    assert not DigestLists.of([other], Tombstones(TABLE.empty_table()))


def test_pdq_within_the_radius_and_not_one_bit_beyond() -> None:
    value = hashlib.sha256(b"x").hexdigest()
    lists = DigestLists((listed("pdq", [value, "00" * 32], radius=31),))
    near, far = flipped(value, *range(0, 248, 8)), flipped(value, *range(0, 256, 8))
    assert lists.hit("pdq", near) == Hit("pdq", near, "a.txt", 31)
    assert lists.hit("pdq", far) is None
    assert lists.hit("pdq", near).receipt[0] == "list of hashes a.txt"
    assert lists.hit("pdq", near).says == "a.txt: pdq, 31 bits apart"


def test_a_table_is_looked_through_as_each_digest_is() -> None:
    rng = np.random.default_rng(1)
    values = [rng.bytes(32).hex() for _ in range(60)]  # more than are compared one by one
    rows = [flipped(values[n % 60], *rng.choice(256, n % 40, replace=False).tolist()) for n in range(400)]
    for radius in (0, 3, 31, 63):
        lists = DigestLists((listed("pdq", values, radius=radius), listed("md5", MD5[:5], "b.txt")))
        table = pa.table({"pdq": pa.array([None, *rows]), "md5": pa.array([MD5[3]] + [MD5[9]] * 400)})
        found = dict(lists.hits(table))
        assert found.pop(0) == Hit("md5", MD5[3], "b.txt")
        alone = {n: hit for n, one in enumerate(rows, 1) if (hit := lists.hit("pdq", one))}
        assert found == alone
        assert len(found) == sum(n % 40 <= radius for n in range(400))


def test_a_table_of_before_names_nobody_and_tombstones_count_too() -> None:
    lists = DigestLists.of([listed("md5", MD5[:5])], tombstones("sha1", "ab" * 20))
    assert list(lists.hits(pa.table({"key": ["0"]}))) == []
    assert list(lists.hits(pa.table({"sha1": [None, "ab" * 20]}))) == [(1, Hit("sha1", "ab" * 20, None))]


def test_empty_lists_name_nobody() -> None:
    lists = DigestLists((listed("pdq", [], radius=31), listed("md5", [])))
    assert lists.hit("pdq", "00" * 32) is lists.hit("md5", "00" * 16) is None
    table = pa.table({"pdq": ["00" * 32], "md5": ["00" * 16]})
    assert list(lists.hits(table)) == []

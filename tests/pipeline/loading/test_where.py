"""Samples by a condition on their rows of the ledger: a bit each, kept, refused with the columns there are."""

import numpy as np
import pyarrow as pa
import pytest

from manifests.files import write_table
from pipeline.loading import where
from pipeline.loading.selection import Selection
from pipeline.loading.where import bits_where
from pipeline.recipes.schema import RecipeError
from tests.support.code_shards import row_of, write_codes
from tokenize_shards.packed_index import open_packed_index


@pytest.fixture
def root(tmp_path):
    """Fifty samples in three shards; the ledger has their rows in another order, others, and dropped ones of the same
    uid."""
    write_codes(tmp_path, (20, 0, 13, 17))
    numbers = np.random.default_rng(0).permutation(80)
    rows = [(int(n), "kept", float(n % 10)) for n in numbers] + [(3, "dropped", 99.0)]
    for part, some in enumerate((rows[:40], rows[40:])):
        columns = {
            "uid": pa.array([row_of(n)["uid"] for n, *_ in some], pa.binary(16)),
            "fate": [fate for _, fate, _ in some],
            "aesthetic": [score for *_, score in some],
        }
        write_table(tmp_path / "ledger" / "final" / f"{part:05d}.parquet", pa.table(columns))
    return tmp_path


def chosen(root, condition):
    index = open_packed_index(root / "codes" / "pretrain")
    bits = bits_where(root, index, condition)
    selection = Selection(bits=bits)
    return [int(low) for number, uids in index.uids() for _, low in uids[selection.of(number, uids)].tolist()]


def test_samples_whose_kept_row_fulfils_it_are_read(root):
    assert chosen(root, "aesthetic >= 8") == [n for n in range(50) if n % 10 >= 8]
    assert chosen(root, "aesthetic > 50") == []  # that row was dropped
    assert chosen(root, "fate = 'kept' -- all of them") == list(range(50))


def test_the_answer_is_kept_until_ledger_or_shards_are_others(root, monkeypatch):
    first = chosen(root, "aesthetic = 1")
    asked = []
    before = where._asked
    monkeypatch.setattr(where, "_asked", lambda *given: asked.append(1) or before(*given))
    assert chosen(root, "aesthetic = 1") == first
    assert asked == []
    write_codes(root, (20, 0, 14, 17))
    assert chosen(root, "aesthetic = 1") == [1, 11, 21, 31, 41]
    assert asked == [1]


@pytest.mark.parametrize("condition", ["beauty > 5", "aesthetic >", "1) OR (1 = 1", ""])
def test_what_is_no_condition_is_refused_with_the_columns(root, condition):
    with pytest.raises(RecipeError, match=r"train\.where: .* is no condition .* its columns: uid, fate, aesthetic"):
        chosen(root, condition)


def test_a_run_without_a_ledger_is_refused(tmp_path):
    write_codes(tmp_path, (2,))
    with pytest.raises(RecipeError, match="ledger/final has no table"):
        chosen(tmp_path, "true")

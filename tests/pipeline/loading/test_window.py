"""A window: the selected samples of its shards, mixed, each with its place."""

import numpy as np

from pipeline.loading.selection import Selection
from pipeline.loading.window import Source, open_window
from tests.support.code_shards import write_codes
from tokenize_shards.packed_index import open_packed_index


def test_samples_are_mixed_over_shards_and_keep_their_places(tmp_path):
    write_codes(tmp_path, (40, 30, 50))
    index = open_packed_index(tmp_path / "codes" / "pretrain")
    source = Source(index, Selection(0.2))
    window = open_window(source, [2, 0], (3, 0))
    counts = Selection(0.2).counts(index)
    assert len(window) == counts[2] + counts[0]
    assert set(window.shard_N.tolist()) == {0, 2}
    assert (np.diff(window.shard_N) != 0).sum() > 15
    for number in (0, 2):
        rows, mine = index.rows(number), window.shard_N == number
        assert np.array_equal(window.uid_N2[mine], rows.uid_N2[window.row_N[mine]])
        for member, place in window.places.items():
            assert np.array_equal(place.offset_N[mine], rows.places[member].offset_N[window.row_N[mine]])
    other = open_window(source, [2, 0], (4, 0))
    assert sorted(map(tuple, other.uid_N2.tolist())) == sorted(map(tuple, window.uid_N2.tolist()))
    assert not np.array_equal(other.uid_N2, window.uid_N2)
    again = open_window(source, [0, 2], (3, 0))  # the shards' order changes nothing
    assert np.array_equal(again.uid_N2, window.uid_N2)

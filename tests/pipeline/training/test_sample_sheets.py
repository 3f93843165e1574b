"""pipeline/training/sample_sheets.py: the fetched pictures that a sheet shows beside the codes."""

import random

from manifests.shards import write_shard
from pipeline.training.sample_sheets import cropped_originals
from tests.support.small_web import jpeg, picture


def test_pictures_are_found_in_any_shard_and_one_that_does_not_open_is_left_out(tmp_path):
    uids = [f"{number:032x}" for number in range(6)]
    bodies = [jpeg(picture(number)) for number in range(5)] + [random.Random(0).randbytes(500)]
    for shard in (0, 1):
        some = list(zip(uids, bodies, strict=True))[3 * shard : 3 * shard + 3]
        write_shard(tmp_path / f"{shard:05d}.tar", ((uid, {"jpg": body}) for uid, body in some))
    found = cropped_originals(tmp_path, [uids[0], uids[4], uids[5], "f" * 32], 64)
    assert list(found) == [uids[0], uids[4]]
    assert {image.size for image in found.values()} == {(64, 64)}

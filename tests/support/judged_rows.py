"""Rows with values, nulls and clusters drawn from a seed, and a recipe of four rules that judges them."""

import hashlib
import random

import pyarrow as pa

from manifests.schema import COLUMNS

RECIPE = {
    "filter": {"rules": [{"use": "size", "min_side": 64}, {"use": "similarity", "column": "similarity", "min": 0.3}]},
    "score": {
        "use": ["clip_similarity", "aesthetic_v2"],
        "clip": {"weights": "stand-in"},
        "aesthetic_v2": {"weights": "stand-in"},
    },
    "tier": {
        "broad": {"size": 64, "rules": [{"use": "aspect", "max": 2.0}]},
        "fine": {"size": 64, "rules": [{"use": "aesthetic", "min": 5.0, "model": "v2"}]},
    },
}


def uid(n: int) -> bytes:
    """Return 16 bytes that are as good as random."""
    return hashlib.md5(str(n).encode()).digest()


def batch_of(rows: int, seed: int = 0) -> pa.RecordBatch:
    """Return rows with uid, width, height, similarity, aesthetic_v2 and cluster; a third as many clusters."""
    draw = random.Random(seed)

    def some(values):
        return [draw.choice([None, *values]) for _ in range(rows)]

    columns = {
        "uid": [uid(n) for n in range(rows)],
        "width": some([50, 64, 100, 200, 300]),
        "height": some([64, 100, 150]),
        "similarity": some([0.2, 0.3, 0.4]),
        "aesthetic_v2": some([4.0, 5.0, 6.0]),
    }
    arrays = [pa.array(values, COLUMNS[name].type) for name, values in columns.items()]
    clusters = pa.array([uid(draw.randrange(rows // 3)) for _ in range(rows)], pa.binary(16))
    return pa.RecordBatch.from_arrays([*arrays, clusters], names=[*columns, "cluster"])

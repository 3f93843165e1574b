"""pipeline/steps/encode.py: a batch is begun before the last one's codes are taken, and what is in hand meanwhile."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.files import write_table
from manifests.schema import schema
from manifests.shards import write_shard
from manifests.uid import uid_hash
from manifests.weights import STAND_IN
from pipeline.execution.decode_pool import Decoders
from pipeline.execution.in_flight import InFlight
from pipeline.execution.step import Unit
from pipeline.recipes.load import load_recipe
from pipeline.steps.encode import Encode, EncodeWorker, TierTools
from tests.support.records import put_table
from tests.support.small_web import jpeg, picture, write_recipe
from tokenize_shards.agreement import Agreement
from tokenize_shards.encode import Encoder
from tokenize_shards.vq import load_vq

UIDS = [bytes([number]) * 16 for number in range(7)]


class Beside(Encoder):
    """An encoder that has codes only when they are asked for, as a GPU has, and notes when that is."""

    ahead = True

    def __init__(self) -> None:
        self.plain = Encoder(load_vq("VQ-demo", STAND_IN), device="cpu")
        self.fingerprint = self.plain.fingerprint
        self.noted: list[str] = []

    def begin_crops(self, crops: Any, size: int, batch_size: int) -> Callable[[], np.ndarray]:
        self.noted.append("begun")

        def wait() -> np.ndarray:
            self.noted.append("taken")
            return self.plain.encode_crops(crops, size, batch_size)

        return wait


class Noting(InFlight):
    """InFlight that remember which rows they have held."""

    def __init__(self, crash_counts: dict[str, int]) -> None:
        super().__init__(None, crash_counts)
        self.held: list[list[str]] = []

    def _write(self, held: dict[str, Any]) -> None:
        if held.get("uids"):
            self.held.append([uid[:2] for uid in held["uids"]])


def encoded(folder: Path, encoder: Encoder, in_flight: InFlight) -> pa.Table:
    recipe = load_recipe(write_recipe(folder / "recipe.toml", "127.0.0.1:9", folder, folder / "run"))
    pictures = [jpeg(picture(number, 70 + number, 66)) for number in range(len(UIDS))]
    pictures[3] = b"no picture"
    write_shard(
        folder / "run/pairs/0.tar", ((uid.hex(), {"jpg": data}) for uid, data in zip(UIDS, pictures, strict=True))
    )
    write_table(folder / "run/plan.parquet", pa.table({"uid": pa.array(UIDS, pa.binary(16))}, schema=schema("uid")))
    tools = TierTools(encoder, Agreement("fp32", 1.0, 1), 2, {})
    worker = EncodeWorker(Encode(recipe, folder / "run"), {"pretrain": tools}, Decoders(0))
    reads = {"plan": "plan.parquet", "tar": "pairs/0.tar", "tier": "pretrain", "made_by": "x"}
    record = worker.run(Unit("pretrain-0", reads, ""), in_flight)
    assert (record.rows_in, record.rows_out, record.dropped) == (7, 6, {"not_an_image": 1})
    return pq.read_table(folder / "run/codes/encoded/pretrain-0.parquet")


@pytest.fixture
def beside() -> Beside:
    return Beside()


def test_the_next_batch_is_begun_before_codes_are_taken_and_the_codes_are_the_same(
    tmp_path: Path, beside: Beside
) -> None:
    in_flight = Noting({})
    made = encoded(tmp_path, beside, in_flight)
    assert beside.noted == ["begun", "begun", "taken", "begun", "taken", "begun", "taken", "taken"]
    assert in_flight.held == [
        ["00", "01"],
        ["00", "01", "02", "03"],
        ["02", "03", "04", "05"],
        ["04", "05", "06"],
        ["06"],
    ]
    one_by_one = Noting({})
    assert encoded(tmp_path, Encoder(load_vq("VQ-demo", STAND_IN), device="cpu"), one_by_one).equals(made)
    assert {len(uids) for uids in one_by_one.held} == {1, 2}  # a CPU has nothing on its way


def test_a_row_under_suspicion_is_alone_in_hand(tmp_path: Path, beside: Beside) -> None:
    in_flight = Noting({UIDS[1].hex(): 1, UIDS[4].hex(): 2})
    encoded(tmp_path, beside, in_flight)
    assert all(uids == ["01"] for uids in in_flight.held if "01" in uids)
    assert all(uids == ["04"] for uids in in_flight.held if "04" in uids)


def test_the_most_pairs_are_chosen_over_all_shards_and_shards_without_any_stay_out(tmp_path: Path) -> None:
    columns = pa.schema(
        {"shard": pa.string(), "uid": pa.binary(16), "fate": pa.string(), "tiers": pa.list_(pa.string())}
    )
    shards = {f"0000{n}": UIDS[2 * n : 2 * n + 2] for n in range(4)}
    for name, uids in shards.items():
        rows = [{"shard": name, "uid": uid, "fate": "kept", "tiers": ["t"]} for uid in uids]
        put_table(tmp_path, "decide", f"ledger/final/{name}.parquet", rows, columns)
    lowest = sorted(UIDS, key=lambda uid: (uid_hash(uid, 0), uid))[:3]
    for most, chosen in ((3, lowest), (None, UIDS)):
        recipe = SimpleNamespace(tier={"t": SimpleNamespace(max_pairs=most)}, pretokenize=SimpleNamespace(seed=0))
        wanted = [(name, [uid for uid in sorted(uids) if uid in chosen]) for name, uids in shards.items()]
        found = Encode(cast("Any", recipe), tmp_path)._chosen("t")
        assert [(name, table["uid"].to_pylist()) for name, table in found] == [one for one in wanted if one[1]]

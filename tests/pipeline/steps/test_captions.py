"""Every caption of a pair is found: the input's two, and what one captioner said of it."""

import pyarrow as pa
import pytest

from manifests.files import write_table
from manifests.plans import plan_folder, planned_tables
from manifests.query import connect
from manifests.schema import schema
from manifests.tables import CAPTIONED
from pipeline.steps.captions import BEFORE, TEXTS, captions_of_before, texts_of
from tests.support.records import put_table, uid

SAYS = {"captioner": "llava", "caption": "a cat on a mat", "short_caption": "a cat", "fit_caption": None}
SAYS |= {"model": "m", "prompt": "p", "origin": "attempt_1", "flags": ["copies_alt"]}


@pytest.fixture
def root(tmp_path):
    """Return a run folder of three fetched pairs; llava has a caption of the first and failed on the second."""
    columns = schema("uid", "url", "text", "top_caption")
    rows = [{"uid": uid(n), "url": f"http://x.test/{n}", "text": f"alt {n}", "top_caption": None} for n in range(3)]
    rows[2] |= {"text": None, "top_caption": "a red cube"}
    for number, some in enumerate((rows[:2], rows[2:])):
        write_table(plan_folder(tmp_path, "fetch") / f"{number:05d}.parquet", pa.Table.from_pylist(some, columns))
    said = {**SAYS, "revision": "r"}
    put_table(
        tmp_path,
        "judge",
        "captions/llava-00000.parquet",
        [{"uid": uid(0), **said}, {"uid": uid(1), "captioner": "llava", "reason": "worker_died"}],
        CAPTIONED,
    )
    put_table(
        tmp_path, "judge", "captions/next-00000.parquet", [{"uid": uid(2), **said, "captioner": "next"}], CAPTIONED
    )
    return tmp_path


def texts_sql(root, *captioners):
    tables = [path for name in captioners for path in sorted((root / "captions").glob(f"{name}-0*.parquet"))]
    return texts_of(planned_tables(root, "fetch"), tables, captioners)


def texts(root, *captioners):
    with connect(root) as connection:
        return connection.execute(f"SELECT * FROM {texts_sql(root, *captioners)} ORDER BY uid").fetchall()


def test_a_captioners_words_stand_beside_the_inputs_texts(root):
    said = SAYS
    assert texts(root, "llava") == [
        (uid(0), "http://x.test/0", "alt 0", None, [said]),
        (uid(1), "http://x.test/1", "alt 1", None, None),  # its row has a reason in place of a caption
        (uid(2), "http://x.test/2", None, "a red cube", None),  # another captioner's
    ]


def test_captioners_stand_in_the_tiers_order_and_what_a_flag_took_is_not_there(root):
    more = [
        {"uid": uid(2), **SAYS, "caption": "of llava"},
        {"uid": uid(1), **SAYS, "caption": "loop loop", "action": "drop_caption", "reason": "caption_repeated"},
    ]
    put_table(root, "judge", "captions/llava-00001.parquet", more, CAPTIONED)
    for order in (("llava", "next"), ("next", "llava")):
        said = [[one["captioner"] for one in row[4] or ()] for row in texts(root, *order)]
        assert said == [["llava"], [], list(order)]


@pytest.mark.parametrize("captioner", [None, "blip"])
def test_without_captions_said_is_null_and_has_the_same_type(root, captioner):
    assert [row[4] for row in texts(root, captioner)] == [None, None, None]
    with connect(root) as connection:
        types = [
            connection.execute(f"SELECT typeof(said) FROM {texts_sql(root, name)} LIMIT 1").fetchone()
            for name in (captioner, "llava")
        ]
    assert types[0] == types[1]


def test_captions_of_before_there_was_a_judge_count_as_they_are(tmp_path):
    """Their step wrote them into `captions/` itself; what was not known of them is null. Once captions are judged these
    alone count."""
    row = {"uid": uid(0), "text": "alt", "url": "http://x.test/0", "top_caption": None}
    plan = pa.Table.from_pylist([row], schema("uid", "url", "text", "top_caption"))
    write_table(plan_folder(tmp_path, "fetch") / "00000.parquet", plan)
    before = pa.schema([field for field in CAPTIONED if field.name in {*BEFORE, "uid", "flags", "reason"}])
    said = {"uid": uid(0), **{name: SAYS[name] for name in BEFORE}, "caption": "", "flags": ["empty"]}
    put_table(tmp_path, "caption", "captions/llava-00000.parquet", [said], before)
    (record,) = captions_of_before(tmp_path)
    sql = texts_of(planned_tables(tmp_path, "fetch"), [tmp_path / record.files[0].path], ["llava"], judged=False)
    with connect(tmp_path) as connection:
        ((found,),) = connection.execute(f"SELECT said FROM {sql}").fetchall()
        (kind,) = connection.execute(f"SELECT typeof(said) FROM {sql}").fetchone()
        (other,) = connection.execute(f"SELECT typeof(said) FROM {texts_sql(tmp_path)}").fetchone()
    wanted = {name: said.get(name) for name in BEFORE}
    assert found == [{**dict.fromkeys(TEXTS), **wanted}]
    assert kind == other
    put_table(tmp_path, "caption", "captions/attempts/llava-00001.parquet", [{"uid": uid(0)}], schema("uid"))
    assert [one.shard for one in captions_of_before(tmp_path)] == [record.shard]
    put_table(tmp_path, "judge", "captions/llava-00000.parquet", [{"uid": uid(0), **SAYS}], CAPTIONED)
    assert captions_of_before(tmp_path) == []

"""Lists, placeholders and evaluation sets in a whole filter stage: reasons by hand, nothing fetched again, twins left
alone."""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import mmh3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.dedup import phash
from filters.images.decode import ImageLimits, open_picture, store
from manifests.tables import MARKS
from pipeline.recipes.load import load_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.stages.run import StageOptions, run_stage
from pipeline.steps.marks import (
    EVALUATED,
    FOUND,
    REMOVED,
    STAND_INS,
    TWIN_REMOVED,
    HashList,
    Marker,
    Part,
    found_marks,
    found_matches,
    read_hash_lists,
    tell_placeholders,
    write_hash_lists,
)
from tests.support.keep_runs import without_beam
from tests.support.records import uid as numbered
from tests.support.small_web import RECIPE, jpeg, picture, write_recipe

pytestmark = pytest.mark.slow


def uid(url: str, text: str) -> str:
    return hashlib.md5(f"{url}\n{text}".encode()).hexdigest()


ROWS = [(f"http://pictures.test/{n}.jpg", f"picture number {n}") for n in range(12)] + [
    ("http://pictures.test/twin.jpg", "picture three once more"),  # 12: number 3 re-encoded
    ("http://a.gone.test/20.jpg", "below a removed host"),  # 13
    ("http://kept.test/21.jpg", "Pond"),  # 14: too short a text for the rules
    ("http://pictures.test/21.jpg", "its twin is well described"),  # 15
    ("http://a.test/22.jpg", "a cat on a mat"),  # 16, 17, 18: one picture for three addresses
    ("http://b.test/22.jpg", "rock concert tickets"),
    ("http://c.test/22.jpg", "summer in Italy"),
    ("http://pictures.test/23.jpg", "a red cube on a blue ball"),  # 19: repeats a prompt
]
WANTED = {
    0: "removed",  # by URL
    1: "removed",  # by uid
    2: "removed",  # by LAION's hash
    4: "removed",  # by pHash
    13: "removed",  # by host
    14: "text",  # it repeats a prompt too, but a rule came first; its twin (15) is kept
    16: "placeholder",
    17: "placeholder",
    18: "placeholder",
    5: "placeholder",  # listed
    6: "in_eval_set",  # in a folder
    7: "in_eval_set",  # in a tar
    19: "in_eval_set",
}


def stored_phash(number: int) -> int:
    """Return the pHash of a picture as `pairs/` holds it: its short side 1.1 x 64, rounded up."""
    limits = ImageLimits(store_side=71)
    return int(phash([open_picture(store(jpeg(picture(number)), limits).jpeg, limits)])[0])


def write_lists(folder: Path) -> str:
    """Write the lists beside the recipe; return the recipe with them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "urls.txt").write_text("# asked for in May\nhttps://PICTURES.test/0.jpg#x\n")
    (folder / "uids.csv").write_text(f"uid\n{uid(*ROWS[1])}\n")
    pq.write_table(
        pa.table({"hash": pa.array([mmh3.hash64("".join(ROWS[2]).encode())[0]], pa.int64())}),
        folder / "removed.parquet",
    )
    (folder / "hosts.txt").write_text("gone.test\n")
    (folder / "bad.txt").write_text(f"{stored_phash(4) ^ 0b11:016x}\n")  # two bits away
    (folder / "sorry.jpg").write_bytes(jpeg(picture(5), 80))
    (folder / "eval" / "deep").mkdir(parents=True)
    (folder / "eval" / "deep" / "six.png").write_bytes(jpeg(picture(6), 70))
    (folder / "eval" / "notes.txt").write_text("no picture")
    with tarfile.open(folder / "eval" / "more.tar", "w") as tar:
        body = jpeg(picture(7), 70)
        member = tarfile.TarInfo("val/seven.jpg")
        member.size = len(body)
        tar.addfile(member, io.BytesIO(body))
    (folder / "prompts.tsv").write_text("Prompt\tCategory\nA red cube on a blue ball.\tx\npond\tx\n")
    hosts = ", ".join(f'"{host}.test" = "{{web}}"' for host in ("a.gone", "kept", "a", "b", "c"))
    text = RECIPE.replace('"pictures.test" = "{web}"', f'"pictures.test" = "{{web}}", {hosts}')
    exclude = (
        'exclude = ["urls.txt", "uids.csv", "removed.parquet", "hosts.txt", {{ file = "bad.txt", kind = "phash", radius'
        " = 2 }}]"
    )
    text = text.replace(', {{ use = "text", min_words = 2 }}', "")  # marked by the tiers, once the picture is there
    text = text.replace('rules = [{{ use = "aspect"', 'rules = [{{ use = "text", min_words = 2 }}, {{ use = "aspect"')
    text = text.replace(
        'rules = [{{ use = "size", min_side = 90',
        'rules = [{{ use = "text", min_words = 2 }}, {{ use = "size", min_side = 90',
    )
    text = text.replace("[filter]\n", f"[filter]\n{exclude}\n")
    return (
        text
        + '[dedup]\nplaceholder_min = 3\nplaceholders = ["sorry.jpg"]\n[decontaminate]\nimages = ["eval"]\nprompts ='
        ' ["prompts.tsv"]\n'
    )


@pytest.fixture(scope="module", autouse=True)
def here():
    """Do all units in this process: nothing here depends on workers."""
    with without_beam():
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory, web):
    """Return (recipe file, run folder) of a finished filter stage with every kind of list."""
    folder = tmp_path_factory.mktemp("marks")
    (folder / "in").mkdir()
    pq.write_table(
        pa.table({"URL": [url for url, _ in ROWS], "TEXT": [text for _, text in ROWS]}), folder / "in" / "a.parquet"
    )
    recipe = write_recipe(folder / "recipe.toml", web, folder / "in", folder / "run", write_lists(folder))
    run_stage(load_recipe(recipe), "filter", StageOptions())
    return recipe, folder / "run"


def reasons(root: Path) -> dict[int, str]:
    table = pa.concat_tables(pq.read_table(path) for path in sorted((root / "ledger" / "final").glob("*.parquet")))
    return {row["source_row"]: row["reason"] for row in table.to_pylist() if row["reason"]}


def test_every_list_gives_its_reason(place):
    _, root = place
    got = reasons(root)
    near = {row for row in (3, 12) if got.pop(row, None) == "near_duplicate"}
    assert len(near) == 1  # number 3 and its twin: one survives
    assert got == WANTED


def test_removed_rows_are_not_fetched_and_leave_no_text(place):
    _, root = place
    planned = pa.concat_tables(
        pq.read_table(path) for path in (root / "manifests" / "plan" / "fetch").glob("*.parquet")
    )
    assert not set(planned["source_row"].to_pylist()) & {0, 1, 2, 13}
    selected = pa.concat_tables(
        pq.read_table(path) for path in sorted((root / "ledger" / "select").glob("*.parquet"))
    ).to_pylist()
    assert [row["text"] for row in selected if row["reason"] == "removed"] == [None] * 4


def test_marks_say_which_list_and_how_near(place):
    _, root = place
    marks = pq.read_table(root / "ledger" / "marks.parquet").to_pylist()
    by_uid = {(row["uid"].hex(), row["reason"]): row["detail"] for row in marks}
    assert by_uid[(uid(*ROWS[4]), "removed")].startswith("bad.txt: pHash ")
    assert by_uid[(uid(*ROWS[4]), "removed")].endswith(", 2 bits apart")
    assert "sorry.jpg" in by_uid[(uid(*ROWS[5]), "placeholder")]
    assert "deep/six.png" in by_uid[(uid(*ROWS[6]), "in_eval_set")]
    assert "more.tar/val/seven.jpg" in by_uid[(uid(*ROWS[7]), "in_eval_set")]
    assert "prompts.tsv line 2: text has 'a red cube on a blue ball'" in by_uid[(uid(*ROWS[19]), "in_eval_set")]
    matches = pq.read_table(root / "ledger" / "eval_matches.parquet").to_pylist()
    # row 14 ("Pond") repeats a prompt too, but a rule had dropped it before
    assert sorted(ROWS.index(pair) for pair in ROWS for row in matches if row["uid"].hex() == uid(*pair)) == [
        6,
        7,
        14,
        19,
    ]


def test_the_most_frequent_hashes_are_reported(place):
    _, root = place
    top = json.loads((root / "dedup" / "top_hashes.json").read_text())["hashes"]
    first = top[0]
    assert (first["pictures"], first["urls"], first["hosts"], first["texts"], first["placeholder"]) == (
        3,
        3,
        3,
        3,
        True,
    )
    assert first["phash"] == f"{stored_phash(22):016x}"
    assert [(one["pictures"], one["placeholder"]) for one in top[1:]] == [(2, False)] * len(top[1:])


def test_another_list_fetches_nothing_again_and_gives_the_bytes_of_a_fresh_run(place, web, tmp_path):
    recipe, root = place
    shutil.copytree(root, tmp_path / "run")
    more = recipe.parent / "more.txt"
    more.write_text("http://pictures.test/9.jpg\n")
    before = len(web.hits)
    made = []
    for name in ("run", "fresh"):
        sets = (f'output.root="{tmp_path / name}"',)
        changed = load_recipe(recipe, sets)
        values = changed.filter.model_copy(update={"exclude": [*changed.filter.exclude, str(more)]})
        made.append(run_stage(changed.model_copy(update={"filter": values}), "filter", StageOptions()).manifest)
        if name == "run":
            assert web.hits[before:] == []
    assert made[0].digest == made[1].digest
    assert reasons(tmp_path / "run") == {**reasons(root), 9: "removed"}
    pairs = [path.read_bytes() for path in (tmp_path / "run" / "pairs").glob("*.tar")]
    assert not any(uid(*ROWS[9]).encode() in data for data in pairs)


def test_report_only_marks_nothing(place, tmp_path):
    recipe, root = place
    shutil.copytree(root, tmp_path / "run")
    sets = (f'output.root="{tmp_path / "run"}"', "decontaminate.action=report", "dedup.placeholder_min=0")
    run_stage(load_recipe(recipe, sets), "filter", StageOptions())
    got = reasons(tmp_path / "run")
    assert [row for row in (6, 7, 19) if row in got] == []
    assert sorted(got.get(row, "kept") for row in (16, 17, 18)) == ["kept", "near_duplicate", "near_duplicate"]
    assert pq.read_table(tmp_path / "run" / "ledger" / "eval_matches.parquet").num_rows == 4


def test_a_list_counts_by_content_not_by_place(place, tmp_path):
    from pipeline.steps.dedup import Dedup
    from pipeline.steps.select import Select

    recipe, root = place
    one = load_recipe(recipe)
    for path in recipe.parent.iterdir():
        if path.suffix in (".txt", ".csv", ".parquet", ".jpg", ".tsv", ".toml"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    shutil.copytree(recipe.parent / "eval", tmp_path / "eval")
    other = load_recipe(tmp_path / "recipe.toml")
    assert one.filter.exclude != other.filter.exclude
    for step in (Select, Dedup):
        assert step(one, root).own_key == step(other, root).own_key
    (tmp_path / "hosts.txt").write_text("gone.test\nmore.test\n")
    assert Select(one, root).own_key != Select(other, root).own_key
    assert Dedup(one, root).own_key == Dedup(other, root).own_key


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('filter.exclude=["none.txt"]', r"filter\.exclude: cannot read .*none\.txt"),
        ('filter.exclude=["wrong.txt"]', r"wrong\.txt: line 2: 'x y' is no url"),
        ('filter.exclude=[{file="hosts.txt", radius=3}]', r"radius 3 is for pHashes and PDQ; this is a list of host"),
        ('decontaminate.images=["empty"]', r"decontaminate\.images: no picture in"),
        ('decontaminate.prompts=["uids.csv"]', r"uids\.csv: line 1: no column named prompt, caption, text"),
        ('dedup.placeholders=["hosts.txt"]', r"hosts\.txt: line 1: 'gone\.test' is no phash"),
    ],
)
def test_faults_of_lists_stop_the_run_before_any_work(place, tmp_path, setting, says):
    recipe, _ = place
    (recipe.parent / "wrong.txt").write_text("http://a.test/\nx y\n")
    (recipe.parent / "empty").mkdir(exist_ok=True)
    with pytest.raises(RecipeError, match=says):
        run_stage(load_recipe(recipe, (setting, f'output.root="{tmp_path / "run"}"')), "filter", StageOptions())
    assert not (tmp_path / "run" / "ledger").exists()


def test_embeddings_find_evaluation_pictures_too(place, tmp_path):
    """A stand-in CLIP sees the same stored picture in the same way, and another picture in another."""
    recipe, root = place
    shutil.copytree(root, tmp_path / "run")
    (tmp_path / "six.jpg").write_bytes(jpeg(picture(6)))
    sets = (
        f'output.root="{tmp_path / "run"}"',
        f'decontaminate.images=["{tmp_path / "six.jpg"}"]',
        "decontaminate.prompts=[]",
        "decontaminate.cosine=0.9999",
        'score.use=["aesthetic_v2"]',
        "score.embeddings=true",
        'score.clip.weights="stand-in"',
        'score.aesthetic_v2.weights="stand-in"',
    )
    run_stage(load_recipe(recipe, sets), "filter", StageOptions())
    matches = pq.read_table(tmp_path / "run" / "ledger" / "eval_matches.parquet").to_pylist()
    assert [(row["uid"].hex(), row["by"], row["item"], row["detail"]) for row in matches] == [
        (uid(*ROWS[6]), "cosine", "six.jpg", "cosine 1.000"),
        (uid(*ROWS[6]), "phash", "six.jpg", "0 bits apart"),
    ]


def test_pictures_and_what_was_found_elsewhere_are_in_one_order(tmp_path):
    """1 and 9 were found elsewhere, 9 twice in the same way; 2 is a removed picture's twin, 5 near a placeholder and,
    as 6 is, near a listed one that is out; 6 was removed by its own pHash."""
    lists = [
        HashList(STAND_INS, "", 1, np.array([(1 << 64) - 1], np.uint64), pa.array(["all ones"])),
        HashList(EVALUATED, "", 0, np.array([4, 4], np.uint64), pa.array(["first", "second"])),
        HashList(REMOVED, "bad.txt", 2, np.array([(1 << 64) - 1, 4], np.uint64), pa.array(["f" * 16, "4"])),
    ]
    write_hash_lists(tmp_path / "lists.arrow", lists)
    read = read_hash_lists(tmp_path / "lists.arrow")
    assert [(one.use, one.says, one.radius) for one in read] == [(one.use, one.says, one.radius) for one in lists]
    marker = Marker(read, pa.array([4], pa.uint64()), drops=True)
    uids = np.array([[n * 0x0101010101010101] * 2 for n in (2, 5, 6)], np.uint64)
    part = Part(uids, np.array([0xF0F0, (1 << 64) - 2, 4], np.uint64), uids, np.array([True, False, False]))
    prompts = found_matches(pa.array([numbered(9)], pa.binary(16)), "ngram", pa.array(["p line 1"]), pa.array(["x"]))
    gone = found_marks(pa.array([numbered(9), numbered(1), numbered(9)], pa.binary(16)), "removed", "its sha256")
    marks, matches = marker.marked(part, pa.concat_tables([gone, prompts]))
    assert [(row["uid"][0], row["reason"], row["detail"]) for row in marks.to_pylist()] == [
        (1, "removed", "its sha256"),
        (2, "near_duplicate", TWIN_REMOVED),
        (5, "placeholder", "all ones, 1 bits apart"),
        (5, "removed", "bad.txt: pHash ffffffffffffffff, 1 bits apart"),
        (6, "in_eval_set", "phash first: 0 bits apart"),
        (6, "removed", "bad.txt: pHash 4, 0 bits apart"),
        (6, "removed", "tombstone of pHash 0000000000000004"),
        (9, "in_eval_set", "ngram p line 1: x"),
        (9, "removed", "its sha256"),
    ]
    assert [tuple(row.values())[1:] for row in matches.to_pylist()] == [
        ("phash", "first", "0 bits apart"),
        ("ngram", "p line 1", "x"),
    ]
    assert marks.schema.equals(MARKS)
    nobody = Part(uids[:0], part.hashes[:0], uids[:0], part.barred[:0])
    assert [table.num_rows for table in marker.marked(nobody, FOUND.empty_table())] == [0, 0]


def test_the_most_frequent_are_told_to_be_placeholders():
    top = [{"phash": "f" * 15 + "0"}, {"phash": "0" * 16}]
    tell_placeholders(top, HashList(STAND_INS, "", 4, np.array([(1 << 64) - 1], np.uint64), pa.array(["x"])))
    assert [entry["placeholder"] for entry in top] == [True, False]

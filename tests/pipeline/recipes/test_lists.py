"""Lists that a recipe names: read once, said by file and line where they are wrong, and in a step's key by content."""

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.dedup import phash
from pipeline.recipes.lists import (
    dedup_key,
    empty_exclusions,
    evaluation_images,
    evaluation_pictures,
    evaluation_prompts,
    exclusions,
    exclusions_key,
    placeholders,
    row_exclusions,
)
from pipeline.recipes.schema import Recipe, RecipeError
from tests.support.small_web import jpeg, picture

PHASH = "00ff00ff00ff00ff"


def recipe(**sections) -> Recipe:
    return Recipe.model_validate({"tier": {"a": {"size": 64}}, **sections})


def written(path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_nothing_named_is_nothing():
    plain = recipe()
    assert (exclusions(plain), row_exclusions(plain), evaluation_prompts(plain)) == ((), None, None)
    assert len(placeholders(plain).hashes) == len(evaluation_pictures(plain).hashes) == 0
    assert dedup_key(plain)["decontaminate"] == {}


def test_lists_of_rows_and_of_pictures_are_told_apart(tmp_path):
    hosts = written(tmp_path / "hosts.txt", "host\nads.example\n")
    hashes = written(tmp_path / "hashes.txt", f"{PHASH}\n")
    named = recipe(
        filter={"exclude": [{"file": hosts, "kind": "host"}, {"file": hashes, "kind": "phash", "radius": 3}]}
    )
    assert [(listed.kind, listed.radius) for listed in exclusions(named)] == [("host", 0), ("phash", 3)]
    assert [listed.kind for listed in row_exclusions(named).lists] == ["host"]
    # printf '00ff00ff00ff00ff\n' | sha256sum
    digest = "1799324dd16d97ff1e80a2a83f77d6f4e50ad0059323419a229306f5e704734e"
    assert exclusions_key(named, "phash") == [["phash", 3, digest]]


def test_one_table_is_a_list_of_one(tmp_path):
    """The documentation said so, and the recipe refused it."""
    hosts = written(tmp_path / "hosts.txt", "host\nads.example\n")
    for named in ({"file": hosts, "kind": "host"}, [{"file": hosts, "kind": "host"}]):
        assert [(listed.kind, listed.radius) for listed in exclusions(recipe(filter={"exclude": named}))] == [
            ("host", 0)
        ]


def test_every_list_that_names_nothing_is_warned_of(tmp_path):
    said = {
        written(tmp_path / "empty.txt", ""): "url",
        written(tmp_path / "header.txt", "md5\n"): "md5",
        written(tmp_path / "comment.txt", "# none yet\n"): "url",
        written(tmp_path / "header.csv", "sha1,case\n"): "sha1",
        str(tmp_path / "rows.parquet"): "uid",
        str(tmp_path / "nulls.parquet"): "host",
    }
    pq.write_table(pa.table({"uid": pa.array([], pa.binary(16))}), tmp_path / "rows.parquet")
    pq.write_table(pa.table({"host": pa.array([None, None], pa.string())}), tmp_path / "nulls.parquet")
    full = written(tmp_path / "hosts.txt", "host\nads.example\n")
    assert empty_exclusions(recipe(filter={"exclude": [full, *said]})) == [
        f"warning: filter.exclude: {file} names nothing ({kind}: 0 values): no row is held against it"
        for file, kind in said.items()
    ]
    assert empty_exclusions(recipe()) == []


def test_a_list_of_prompts_is_known_by_its_name_and_bytes(tmp_path):
    prompts = written(tmp_path / "prompts.txt", "a red fox jumps over the lazy dog today\n")
    # printf 'a red fox jumps over the lazy dog today\n' | sha256sum
    digest = "fe5dca0c8e94cf6433c070eef334958fd5bc4447cbe51d442803356f30327c62"
    assert dedup_key(recipe(decontaminate={"prompts": prompts}))["decontaminate"]["prompts"] == [
        ["prompts.txt", digest]
    ]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"file": "hosts.txt", "kind": "host", "radius": 2}, "radius 2 is for pHashes and PDQ; this is a list of host"),
        ({"file": "none.txt", "kind": "host"}, r"filter\.exclude: cannot read .*none\.txt.*No such file"),
        ({"file": "hosts.txt", "kind": "uid"}, r"filter\.exclude: .*hosts\.txt"),
    ],
)
def test_lists_that_are_wrong(tmp_path, entry, says):
    written(tmp_path / "hosts.txt", "ads.example\n")
    with pytest.raises(RecipeError, match=says):
        exclusions(recipe(filter={"exclude": [{**entry, "file": str(tmp_path / entry["file"])}]}))


def test_placeholders_are_hashes_lists_of_them_and_pictures(tmp_path):
    hashes = written(tmp_path / "hashes.txt", f"{PHASH}\n0000000000000001\n")
    (tmp_path / "gone.jpg").write_bytes(jpeg(picture(1)))
    found = placeholders(recipe(dedup={"placeholders": ["FFFFFFFFFFFFFFFF", hashes, str(tmp_path / "gone.jpg")]}))
    assert [f"{int(value):016x}" for value in found.hashes[:3]] == ["f" * 16, PHASH, "0000000000000001"]
    assert found.names == ("pHash ffffffffffffffff", f"hashes.txt: {PHASH}", "hashes.txt: 0000000000000001", "gone.jpg")


def test_evaluation_pictures_of_a_folder_with_a_tar(tmp_path):
    """A picture in a tar counts as one in a folder does, under the tar's name; a damaged one is a fault."""
    (tmp_path / "set" / "deep").mkdir(parents=True)
    (tmp_path / "set" / "deep" / "1.jpg").write_bytes(jpeg(picture(1)))
    (tmp_path / "set" / "bad.png").write_bytes(b"no picture")
    (tmp_path / "set" / "notes.txt").write_text("left out")
    with tarfile.open(tmp_path / "set" / "more.tar", "w") as tar:
        body = jpeg(picture(1))
        member = tarfile.TarInfo("in.jpg")
        member.size = len(body)
        tar.addfile(member, io.BytesIO(body))
    named = recipe(decontaminate={"images": str(tmp_path / "set")})
    found = evaluation_pictures(named)
    assert found.names == ("deep/1.jpg", "more.tar/in.jpg")
    assert found.faults == ("bad.png: not_an_image",)
    assert found.hashes[0] == found.hashes[1] == phash([next(evaluation_images(named))[1]])[0]
    assert found.content[0] == ["deep/1.jpg", f"{int(found.hashes[0]):016x}"]


def test_a_folder_without_pictures_and_a_tar_that_is_none(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecipeError, match=r"no picture in .*empty.* \(0 files, 0 of them damaged\)"):
        evaluation_pictures(recipe(decontaminate={"images": str(tmp_path / "empty")}))
    with pytest.raises(RecipeError, match="is not a readable tar"):
        evaluation_pictures(recipe(decontaminate={"images": written(tmp_path / "x.tar", "no tar")}))


def test_the_key_holds_contents_not_places(tmp_path):
    keys = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        prompts = written(tmp_path / name / "prompts.txt", "a cat on a mat in the sun today\n")
        hashes = written(tmp_path / name / "hashes.txt", f"{PHASH}\n")
        keys.append(dedup_key(recipe(dedup={"placeholders": hashes}, decontaminate={"prompts": prompts})))
    contents = [key["placeholders"] for key in keys]
    assert contents[0] == contents[1] == [[f"hashes.txt: {PHASH}", PHASH]]
    assert keys[0]["decontaminate"]["prompts"] == keys[1]["decontaminate"]["prompts"]
    assert keys[0]["decontaminate"]["prompts"][0][0] == "prompts.txt"
    assert keys[0] == keys[1]

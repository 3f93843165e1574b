"""pipeline/execution/run_folder.py: a run folder holds its recipe twice, and one run at a time."""

import os
import socket
import subprocess
import sys

import pytest
import tomli_w

from manifests.files import TEMPORARY
from manifests.recipe_file import headed
from manifests.tombstones import TOMBSTONES, write_tombstones
from manifests.transaction import ASKED
from pipeline.execution.run_folder import (
    COPY,
    RECIPE,
    locked,
    need_removals,
    recipe_of_run,
    recipe_values,
    write_recipe,
)
from pipeline.recipes.load import parse_recipe
from pipeline.recipes.schema import RecipeError

DAMAGE = {"changed": b"# changed\n", "cut short": b"", "not text": b"\xff\xfe"}


def recipe_at(root):
    return parse_recipe({"tier": {"a": {"size": 64}}, "dedup": {"radius": 5}, "output": {"root": str(root)}})


@pytest.fixture
def root(tmp_path):
    write_recipe(recipe_at(tmp_path / "run"))
    return tmp_path / "run"


def test_the_recipe_is_read_from_either_copy(root):
    whole = recipe_at(root).plain()
    assert recipe_values(root) == whole
    (root / RECIPE).unlink()
    assert recipe_values(root) == whole
    write_recipe(recipe_at(root))
    (root / COPY).unlink()
    assert recipe_values(root) == whole


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_copy_is_not_believed(root, damage):
    whole = recipe_at(root).plain()
    (root / RECIPE).write_bytes(damage)
    assert recipe_values(root) == whole
    (root / COPY).write_bytes(damage)
    assert recipe_values(root) is None
    with pytest.raises(RecipeError, match=r"recipe\.toml and its copy are damaged or missing; give the recipe"):
        recipe_of_run(root)


def test_a_run_that_was_moved_is_where_it_lies_now(root, tmp_path):
    root.rename(tmp_path / "moved")
    recipe = recipe_of_run(tmp_path / "moved", sets=["dedup.radius=8"])
    assert recipe.root == tmp_path / "moved"
    assert recipe.dedup.radius == 8
    assert recipe_of_run(tmp_path / "moved").dedup.radius == 5  # settings are for this invocation


def test_a_recipe_that_is_named_stands_in_for_the_runs_own(root, tmp_path):
    (tmp_path / "other.toml").write_text('[tier.b]\nsize = 32\n[output]\nroot = "elsewhere"\n')
    (root / RECIPE).unlink()
    recipe = recipe_of_run(root, str(tmp_path / "other.toml"))
    assert (list(recipe.tier), recipe.root) == (["b"], root)


def test_a_setting_over_a_recipe_resolved_before_the_later_opt_outs_holds(root):
    values = recipe_at(root).plain()
    values["fetch"] = {key: value for key, value in values["fetch"].items() if key != "robots_4xx"}
    values["fetch"]["opt_outs"] = ["noai", "tdmrep"]
    (root / RECIPE).write_bytes(headed(tomli_w.dumps(values).encode()))
    assert recipe_of_run(root).fetch.opt_outs == ["noai", "tdmrep", "content-signal", "aipref", "xmp", "c2pa"]
    assert recipe_of_run(root, sets=['fetch.opt_outs=["tdmrep"]']).fetch.opt_outs == ["tdmrep"]


def test_a_wrong_setting_is_an_error_of_the_user(root):
    with pytest.raises(RecipeError, match="radiu"):
        recipe_of_run(root, sets=["dedup.radiu=8"])


def test_the_second_run_is_told_who_holds_the_folder(root):
    held = f"held by another run \\(process {os.getpid()} on {socket.gethostname()}\\); wait for it, or use another"
    with locked(root), pytest.raises(RecipeError, match=held), locked(root):
        pass
    with locked(root):  # the first has let go
        pass


def test_the_lock_is_gone_with_the_process_however_it_ended(tmp_path):
    code = "import fcntl, os, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / ".lock")]).returncode == -9
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_what_dead_attempts_left_is_swept_and_the_folder_is_made(tmp_path):
    with locked(tmp_path / "new" / "run"):
        (tmp_path / "new/run/pairs").mkdir()
        (tmp_path / f"new/run/pairs/{TEMPORARY}host-1-00000.tar").touch()
        (tmp_path / "new/run/pairs/00000.tar").touch()
    with locked(tmp_path / "new" / "run"):
        assert [path.name for path in (tmp_path / "new/run/pairs").iterdir()] == ["00000.tar"]


def test_what_workers_of_an_earlier_run_said_is_swept(tmp_path):
    for said in ("logs/marks/score/00000.a.json", "logs/signs/score/b.json", "logs/workers/score-0.log"):
        (tmp_path / said).parent.mkdir(parents=True)
        (tmp_path / said).touch()
    with locked(tmp_path):
        assert [path.name for path in tmp_path.rglob("*.*") if path.parent != tmp_path] == ["score-0.log"]


def test_a_folder_that_cannot_be_made_or_written_to_is_an_error_of_the_user(tmp_path):
    (tmp_path / "file").touch()
    unmade = r"output\.root: cannot make the run folder '.*/file/run' \(Not a directory\)"
    with pytest.raises(RecipeError, match=unmade), locked(tmp_path / "file" / "run"):
        pass
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    with pytest.raises(RecipeError, match="cannot be written to"), locked(tmp_path / "run"):
        pass


def test_a_removal_that_is_not_at_its_end_bars_everything_but_itself(root):
    (root / ASKED).write_text("{}")
    barred = f"{root}: a removal was asked for here and is not at its end; first: pipeline remove {root}"
    with pytest.raises(RecipeError, match=barred), locked(root):
        pass
    with locked(root, removing=True):
        pass


def test_lost_tombstones_are_an_error_and_none_at_all_are_not(root):
    need_removals(root)
    write_tombstones(root, [{"kind": "url", "value_sha256": "00" * 32}])
    need_removals(root)
    (root / TOMBSTONES).unlink()
    with pytest.raises(RecipeError, match="what was removed would come back"):
        need_removals(root)
    (root / TOMBSTONES).write_bytes(b"PAR1")
    with pytest.raises(RecipeError, match="damaged"):
        need_removals(root)


def test_a_lost_record_of_a_removal_is_an_error(root):
    write_tombstones(root, [{"kind": "url", "value_sha256": "00" * 32}])
    (root / "manifests" / "removals").mkdir()
    (root / "manifests" / "removals" / "0002.json").write_text("{")
    with pytest.raises(RecipeError, match=r"removals/0001\.json: missing or damaged, and lineage would break off"):
        need_removals(root)

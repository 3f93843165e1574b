"""pipeline/recipes/user_code.py: files that enter things into a register, and leave with their recipe."""

import sys

import pytest

from pipeline.recipes.schema import RecipeError
from pipeline.recipes.user_code import Blame, UserFiles

CODE = "from tests.pipeline.recipes.test_user_code import REGISTER\nREGISTER['mine'] = 1\n"
REGISTER: dict[str, int] = {}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "REGISTER", {"theirs": 0})
    monkeypatch.setitem(sys.modules, "tests.pipeline.recipes.test_user_code", sys.modules[__name__])
    checked = []
    return UserFiles("some.python", REGISTER, lambda file, made: checked.append((file.path.name, made))), checked


def test_what_files_register_comes_and_goes(tmp_path, files):
    some, checked = files
    path = tmp_path / "a.py"
    path.write_text(CODE)
    some.load(str(path))
    some.load([str(path), str(path)])
    assert REGISTER == {"theirs": 0, "mine": 1}
    assert checked == [("a.py", {"mine": 1})]
    assert [name for name, _ in some.behind({"mine"})] == ["a.py"]
    assert some.behind({"theirs"}) == []
    path.write_text(CODE.replace("= 1", "= 2"))
    some.load([str(path)])
    assert REGISTER["mine"] == 2
    some.load([])
    assert REGISTER == {"theirs": 0}


def test_a_faulty_file_changes_nothing(tmp_path, files):
    some, _ = files
    path = tmp_path / "a.py"
    path.write_text(CODE + "1 / 0\n")
    with pytest.raises(RecipeError, match=r"recipe: some\.python: .*a\.py, line 3: ZeroDivisionError"):
        some.load([str(path)])
    assert REGISTER == {"theirs": 0}
    assert not [name for name in sys.modules if name.startswith("user_some")]


def test_blame_leaves_alone_what_passes(tmp_path):
    with pytest.raises(OSError, match="disk"), Blame(tmp_path, "x", (OSError,)):
        raise OSError("disk")
    with pytest.raises(LookupError, match=r"x: .*KeyError"), Blame(tmp_path, "x", (), LookupError):
        raise KeyError("a")

"""A recipe file comes back as it was written; a changed byte, or text that is no TOML, is named."""

import pytest

from manifests.files import FormatError
from manifests.recipe_file import headed, read_headed

TEXT = b'[output]\nroot = "run"\n'


def test_what_was_written_is_read(tmp_path):
    (tmp_path / "recipe.toml").write_bytes(headed(TEXT))
    assert read_headed(tmp_path / "recipe.toml") == {"output": {"root": "run"}}


@pytest.mark.parametrize("place", range(0, len(headed(TEXT)), 9))
def test_a_changed_byte_anywhere_is_seen(tmp_path, place):
    data = bytearray(headed(TEXT))
    data[place] ^= 1
    (tmp_path / "recipe.toml").write_bytes(data)
    with pytest.raises(FormatError, match="changed after it was written"):
        read_headed(tmp_path / "recipe.toml")


def test_text_that_is_no_toml_is_named(tmp_path):
    (tmp_path / "recipe.toml").write_bytes(headed(b"root = \n"))
    with pytest.raises(FormatError, match="not TOML"):
        read_headed(tmp_path / "recipe.toml")

"""What all captioners share: the options, a caption, the error."""

import dataclasses
import subprocess
import sys

import pytest
from pydantic import ValidationError

from captioning.captioner import Caption, CaptionerConfig, CaptionerError, read_options


def test_a_batch_size_is_a_number_from_1_on_or_none() -> None:
    assert CaptionerConfig().batch_size is None
    assert CaptionerConfig(batch_size=1).batch_size == 1
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        CaptionerConfig(batch_size=0)


def test_an_option_that_there_is_not_is_refused_and_none_is_changed_later() -> None:
    with pytest.raises(ValidationError, match="temperature"):
        CaptionerConfig.model_validate({"temperature": 1})
    with pytest.raises(ValidationError, match="frozen"):
        CaptionerConfig().batch_size = 3  # type: ignore[misc]


def test_captions_are_equal_by_what_they_say() -> None:
    caption = Caption("A cat. It sits.", "A cat.")
    assert caption.flags == ()
    assert caption == Caption("A cat. It sits.", "A cat.", ())
    assert caption != Caption("A cat. It sits.", "A cat.", ("truncated",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        caption.text = "A dog."  # type: ignore[misc]


def test_the_error_is_a_value_error() -> None:
    assert issubclass(CaptionerError, ValueError)


def test_the_protocol_imports_neither_torch_nor_pillow() -> None:
    code = "import sys, captioning.captioner; sys.exit(bool({'torch', 'PIL', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_options_are_read_as_the_table_of_their_kind() -> None:
    assert read_options(CaptionerConfig, {"batch_size": 3}).batch_size == 3
    with pytest.raises(
        CaptionerError, match=r"batch_size: .*\(got 0\); unknown key 'a'; known keys: batch_size, prompt, use"
    ):
        read_options(CaptionerConfig, {"a": 1, "batch_size": 0})

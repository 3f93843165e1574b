"""The registry of captioners: options, weights' identity and errors, all without torch."""

import subprocess
import sys

import pytest

from captioning.base import build_captioner, captioner_settings, captioner_weights, check_captioner, known_kinds
from captioning.captioner import CaptionerError
from captioning.captioners.transformers_files import TransformersConfig


def test_known_kinds() -> None:
    assert "transformers" in known_kinds()


def test_defaults_are_llamagens_prompt_and_the_real_model() -> None:
    config = check_captioner("llava", {})
    assert isinstance(config, TransformersConfig)
    assert (config.model, config.prompt, config.max_new_tokens) == ("llava-hf/llava-1.5-7b-hf", "describe_v1", 256)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("blip", {"use": "blip"}, r"caption\.blip\.use: no kind of captioner 'blip'; known: .*transformers"),
        (
            "llava",
            {"beams": 1},
            "unknown key 'beams'; known keys: batch_size, compile, dtype, max_new_tokens, model, prompt, revision",
        ),
        ("llava", {"dtype": "int3"}, r"dtype: .*'auto', 'bfloat16'.*\(got 'int3'\)"),
        ("llava", {"max_new_tokens": 0}, r"max_new_tokens: .*greater than or equal to 1 \(got 0\)"),
    ],
)
def test_wrong_options_raise_and_list_the_choices(name: str, options: dict[str, object], says: str) -> None:
    for call in (check_captioner, captioner_weights):
        with pytest.raises(CaptionerError, match=says):
            call(name, options)
    with pytest.raises(CaptionerError, match=says):
        build_captioner(name, options, 8)


def test_the_stand_in_says_so() -> None:
    (weights,) = captioner_weights("llava", {"model": "stand-in"})
    assert weights.stand_in
    assert weights.label == "llava-tiny (stand-in weights)"
    assert captioner_settings("llava", {"model": "stand-in"})["model"] == weights.label


def test_settings_hold_what_changes_captions_and_nothing_else() -> None:
    settings = captioner_settings("llava", {"model": "stand-in", "max_new_tokens": 16})
    assert settings["kind"] == "transformers"
    assert captioner_settings("llava", {"model": "stand-in", "max_new_tokens": 17}) != settings
    same = {"model": "stand-in", "max_new_tokens": 16, "batch_size": 4, "prompt": "one_sentence_v1"}
    assert captioner_settings("llava", same) == settings


def test_the_registry_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from captioning.base import captioner_weights, check_captioner;"
        "check_captioner('llava', {}); captioner_weights('llava', {'model': 'stand-in'});"
        "print([name for name in ('torch', 'transformers', 'PIL', 'huggingface_hub') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )

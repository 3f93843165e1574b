"""Captioners of the user's own files: known like others, part of the key, blamed with file and line."""

import hashlib

import pytest

from captioning.base import build_captioner, captioner_promise, captioner_settings, known_kinds
from captioning.captioner import Answer, Ask, CaptionerError
from pipeline.recipes.load import load_recipe, parse_recipe
from pipeline.recipes.schema import RecipeError
from pipeline.recipes.user_captioners import captioner_options, fault_of, files_behind_captions
from pipeline.steps.caption import CaptionStep

CODE = """from captioning.base import Entry, register_kind
from captioning.captioner import Answer, CaptionerConfig, read_options

class Options(CaptionerConfig):
    word: str = "picture"

class Sizes:
    def __init__(self, config):
        self.word = config.word

    def answers(self, asks):
        for ask in asks:
            yield Answer(ask.uid, f"A {self.word} of {len(ask.image)} bytes.")

register_kind("sizes", Entry(
    version=1,
    config=lambda options: read_options(Options, options),
    settings=lambda config: {"word": config.word},
    weights=lambda config: (),
    build=lambda name, config, batch_size, ahead: Sizes(config),
))
"""
OPENAI = ["caption.openai.base_url='http://127.0.0.1:1/v1'", "caption.openai.model='m'"]
ASKS = [Ask(b"u" * 16, b"\xff\xd8", "Describe")]


@pytest.fixture(autouse=True)
def _none_afterwards():
    yield
    parse_recipe({"tier": {"all": {"size": 64}}})


def recipe_of(folder, code=CODE, more=""):
    (folder / "mine.py").write_text(code)
    path = folder / "recipe.toml"
    path.write_text(
        '[caption]\npython = "mine.py"\n[caption.mine]\nuse = "sizes"\nword = "photo"\n'
        + more
        + "[tier.all]\nsize = 64\n"
        'caption = "mine"\n'
    )
    return path


def test_it_is_a_captioner_like_any_other_and_leaves_with_its_recipe(tmp_path):
    recipe = load_recipe(recipe_of(tmp_path))
    options = captioner_options(recipe, "mine")
    captioner = build_captioner("mine", options)
    assert list(captioner.answers(ASKS)) == [Answer(b"u" * 16, "A photo of 2 bytes.")]
    sha256 = hashlib.sha256(CODE.encode()).hexdigest()
    assert (captioner.name, captioner.model, captioner.revision, captioner.version) == ("mine", "sizes", sha256, 1)
    assert captioner_settings("mine", options) == {"kind": "sizes", "version": 1, "word": "photo", "python": sha256}
    assert captioner_promise("mine", options) == "not promised"
    parse_recipe({"tier": {"all": {"size": 64}}})
    assert "sizes" not in known_kinds()
    assert CaptionStep(recipe, tmp_path).options("mine") == options  # and comes back
    assert "sizes" in known_kinds()


def test_files_are_named_where_a_tier_asks_for_what_they_register(tmp_path):
    sha256 = hashlib.sha256(CODE.encode()).hexdigest()
    assert files_behind_captions(load_recipe(recipe_of(tmp_path))) == [("mine.py", sha256)]
    assert files_behind_captions(load_recipe(recipe_of(tmp_path), ["tier.all.caption='openai'", *OPENAI])) == []


def test_its_content_is_in_the_key_and_its_folder_is_not(tmp_path):
    (tmp_path / "b").mkdir()
    first = CaptionStep(load_recipe(recipe_of(tmp_path)), tmp_path).own_key
    assert CaptionStep(load_recipe(recipe_of(tmp_path / "b")), tmp_path).own_key == first
    assert CaptionStep(load_recipe(recipe_of(tmp_path, CODE + "# more\n")), tmp_path).own_key != first


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("1 / 0\n", r"recipe: caption\.python: .*mine\.py, line 1: ZeroDivisionError"),
        ("x = 1\n", "registers no captioner; call register_kind"),
        (
            CODE.replace('"sizes"', '"openai"'),
            r"mine\.py, line 15: ValueError: two kinds of captioners",
        ),
        (
            "from captioning.base import register_kind\nregister_kind('sizes', 3)\n",
            "registered as int, wanted an Entry",
        ),
        (CODE.replace("read_options(Options", "1 / 0 or (Options"), r"captioner 'sizes': .*line 17: ZeroDivisionError"),
    ],
)
def test_a_faulty_file_is_a_fault_of_the_recipe(tmp_path, code, says):
    before = known_kinds()
    with pytest.raises(RecipeError, match=says):
        load_recipe(recipe_of(tmp_path, code))
    parse_recipe({"tier": {"all": {"size": 64}}})
    assert known_kinds() == before


def test_wrong_options_say_the_known_ones(tmp_path):
    with pytest.raises(RecipeError, match=r"caption\.mine: unknown key 'size'; known keys: .*, use, word"):
        load_recipe(recipe_of(tmp_path, more="size = 3\n"))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("1 / 0", r"captioner 'sizes': .*mine\.py, line 13: ZeroDivisionError"),
        ("yield 'words'", "answers gave 'words', wanted an Answer"),
        ("yield Answer(ask.uid, None)", "its text is None"),
        ("yield Answer(ask.uid, reason='tired')", "its reason is 'tired'; those that there are: not_an_image"),
    ],
)
def test_what_goes_wrong_in_answers_names_the_file(tmp_path, line, says):
    code = "\n".join([*CODE.splitlines()[:12], f"            {line}", *CODE.splitlines()[13:], ""])
    recipe = load_recipe(recipe_of(tmp_path, code))
    with pytest.raises(CaptionerError, match=says):
        list(build_captioner("mine", captioner_options(recipe, "mine")).answers(ASKS))


def test_what_a_run_can_keep():
    assert fault_of(Answer(b"u", reason="captioner_failed")) == "" == fault_of(Answer(b"u", ""))
    assert "whole characters" in fault_of(Answer(b"u", "a \ud800 b"))
    for tokens in ("x", 2**70, -1, True, 1.5, None):
        assert "wanted a whole number" in fault_of(Answer(b"u", "a", tokens=tokens))
        assert "wanted a whole number" in fault_of(Answer(b"u", "a", prompt_tokens=tokens))
    assert "wanted true or false" in fault_of(Answer(b"u", "a", at_limit="no"))

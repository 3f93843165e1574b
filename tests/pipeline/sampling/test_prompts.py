"""What is to be drawn is read, or refused with what was got and what is wanted."""

import pytest

from pipeline.sampling.prompts import PromptError, read_classes, read_prompts


def test_lines_are_prompts_and_empty_ones_are_left_out(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text('\ufeffa cat\n\n  a dog, "red" \r\nein Bär\n', encoding="utf-8")
    assert read_prompts(path) == ["a cat", 'a dog, "red"', "ein Bär"]


def test_parti_prompts_are_the_column_prompt(tmp_path):
    path = tmp_path / "PartiPrompts.tsv"
    path.write_text('Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tx\n"a ""sign"" here"\tArts\tBasic\t\n')
    assert read_prompts(path) == ["bond", 'a "sign" here']


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", b"Text\tCategory\na\tb\n", "has the columns Text, Category; wanted one called 'Prompt'"),
        ("a.txt", b"\n \n", "holds no prompt"),
        ("a.txt", b"caf\xe9\n", "is no UTF-8 text"),
    ],
)
def test_a_file_without_prompts_is_refused(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PromptError, match=said):
        read_prompts(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(PromptError, match="No such file"):
        read_prompts(tmp_path / "none.txt")


def test_classes_are_numbers_and_ranges():
    assert read_classes(["207", "3-5,9"], 1000) == ["207", "3", "4", "5", "9"]
    assert len(read_classes(["0-999"], 1000)) == 1000


@pytest.mark.parametrize("word", ["1000", "5-3", "990-1000", "a cat", "-1", "²"])
def test_what_is_no_class_is_refused(word):
    with pytest.raises(PromptError, match="wanted numbers from 0 to 999"):
        read_classes([word], 1000)

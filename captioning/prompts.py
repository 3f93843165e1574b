"""Name every prompt that a captioner may be asked; a changed wording gets a new name."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

FIELDS = ("alt", "top_caption")
"""What a prompt may hold in braces: the web's text and the caption that came with the input."""
MOST_LETTERS = 400
"""Of a field; longer texts end at the last word that fits."""
JOINERS = "\u200c\u200d\u00ad"
"""Invisible letters within words of many scripts, and within pictographs."""
_PIECE = re.compile(r"\{(?:alt|top_caption)\}")
_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Prompt:
    """A question put to a vision-language model beside one picture.

    `text` may hold `{alt}` and `{top_caption}`; `without` is asked of pictures that lack one of the fields in use.
    `source` says where the wording is from.
    """

    name: str
    text: str
    source: str
    without: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the fields that the text holds."""
        return tuple(name for name in FIELDS if f"{{{name}}}" in self.text)

    @property
    def own_words(self) -> tuple[str, ...]:
        """Return what is the prompt's own: the pieces of its texts between the fields."""
        return tuple(piece for piece in (*_PIECE.split(self.text), self.without) if piece.strip())


PROMPTS: dict[str, Prompt] = {
    prompt.name: prompt
    for prompt in (
        Prompt(
            "describe_v1",
            "Describe this image in as much detail as possible",
            "LlamaGen (arXiv 2406.06525), appendix A: its stage II captions",
        ),
        Prompt("one_sentence_v1", "Describe this image in one sentence.", "ours"),
        Prompt(
            "visible_only_v1",
            "Describe only what can be seen in this image. Do not guess names, places or intentions.",
            "ours",
        ),
        Prompt(
            "realign_v1",
            "A web page shows this image beside the text: {alt}\nDescribe the image in detail. Take over the names,"
            " places, brands and numbers of that text where they fit what can be seen, and leave out the rest of it.",
            "ours; the task is that of Altogether (arXiv 2410.17251): re-align alt texts rather than replace them",
            "Describe this image in as much detail as possible",
        ),
    )
}


def prompt_named(name: str, more: Mapping[str, Prompt] | None = None) -> Prompt:
    """Return a prompt by its name, of the bundled ones and `more`. Raises ValueError listing the known ones."""
    known = {**PROMPTS, **(more or {})}
    if name not in known:
        raise ValueError(f"no prompt {name!r}; known: {', '.join(sorted(known))}")
    return known[name]


def check_prompt(prompt: Prompt) -> None:
    """Raise ValueError for a text that is empty, names a field that does not exist, or needs a `without`."""
    for what, text in (("text", prompt.text), ("without", prompt.without)):
        unknown = [name for name in _FIELD.findall(text) if name not in FIELDS or what == "without"]
        if unknown:
            known = "none" if what == "without" else ", ".join(FIELDS)
            raise ValueError(f"{what}: no field {{{unknown[0]}}}; fields that it may hold: {known}")
    if not prompt.text.strip():
        raise ValueError("text: empty; wanted the question that is put beside a picture")
    if prompt.fields and not prompt.without.strip():
        raise ValueError(f"without: wanted the question for pictures that lack {' or '.join(prompt.fields)}")


def fill(prompt: Prompt, alt: str | None, top_caption: str | None) -> str:
    """Return what is asked of one picture: the prompt's text with its fields filled, or `without` where one is empty.

    A field is one line of at most MOST_LETTERS characters, in quotation marks; braces in it stay what they are.
    """
    values = {"alt": _line(alt), "top_caption": _line(top_caption)}
    if not all(values[name] for name in prompt.fields):
        return prompt.without
    return _FIELD.sub(lambda match: f'"{values[match[1]]}"' if match[1] in FIELDS else match[0], prompt.text)


def _line(text: str | None) -> str:
    kept = (letter if letter.isprintable() or letter in JOINERS else " " for letter in text or "")
    line = " ".join("".join(kept).split())
    if len(line) <= MOST_LETTERS:
        return line
    cut = line[: MOST_LETTERS + 1].rpartition(" ")[0]
    return cut or line[:MOST_LETTERS]

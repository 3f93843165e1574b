"""Name every prompt that a captioner may be asked; a changed wording gets a new name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A question put to a vision-language model beside one picture. `source` says where the wording is from."""

    name: str
    text: str
    source: str


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
    )
}


def prompt_named(name: str) -> Prompt:
    """Return a prompt by its name. Raises ValueError listing the known ones."""
    if name not in PROMPTS:
        raise ValueError(f"no prompt {name!r}; known: {', '.join(sorted(PROMPTS))}")
    return PROMPTS[name]

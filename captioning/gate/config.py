"""Name every flag of a caption, every action that may follow, and the thresholds: [caption.gate] of the recipe."""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Action = Literal["keep", "retry", "fall_back", "drop_caption"]
"""What follows a flag, from mild to strict: nothing; one more attempt; the input's own caption (top_caption, then alt)
in its place; none at all."""
ACTIONS: tuple[Action, ...] = ("keep", "retry", "fall_back", "drop_caption")

DEFAULT_ACTIONS: dict[str, Action] = {
    "empty": "drop_caption",
    "too_short": "retry",
    "refusal": "retry",
    "repeated": "retry",
    "truncated": "keep",
    "non_printable": "drop_caption",
    "wrong_language": "retry",
    "prompt_leak": "retry",
    "boilerplate": "keep",
    "copies_alt": "keep",
    "over_tokens": "keep",
    "lost_names": "keep",
    "invented_names": "keep",
    "lost_numbers": "keep",
    "invented_numbers": "keep",
    "below_alt": "fall_back",
    "repeated_in_corpus": "drop_caption",
}
"""Flag -> what follows by default; the order is that in which a caption's flags are listed."""
FLAGS = tuple(DEFAULT_ACTIONS)
CORPUS = "repeated_in_corpus"
"""The flag that is known once all attempts are made: [caption.audit] max_repeats."""


class GateConfig(BaseModel):
    """[caption.gate]: thresholds of the flags, and what follows each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    actions: dict[str, Action] = Field({}, description="flag = what follows; flags that are not named keep their own")
    after_retry: Literal["keep", "fall_back", "drop_caption"] = Field(
        "drop_caption", description="what follows where the second attempt asks for a retry too"
    )

    retry_prompt: str | None = Field(None, description="prompt of the second attempt; none: the captioner's own")
    retry_seed: int | None = Field(
        None,
        ge=1,
        description="the second attempt is drawn by it, not the most likely words; none: 1 where retry_prompt is none",
    )
    min_words: int = Field(3, ge=0, description="words; fewer are too_short")
    min_characters: int = Field(
        5, ge=0, description="characters, in scripts that put no space between words; fewer are too_short"
    )
    max_repeats: int = Field(3, ge=2, description="times that one run of three words comes, from which it is repeated")
    min_repeated_share: float = Field(
        0.3, ge=0, le=1, description="and the share of words that stand in such runs, from which it is"
    )
    max_loop: int = Field(
        4, ge=2, description="times that some words come one right after the other, from which it is repeated"
    )
    max_same_sentences: int = Field(2, ge=2, description="times that one sentence comes, from which it is repeated")
    min_distinct_share: float = Field(
        0.25, ge=0, le=1, description="share of different words below which a caption of 30 and more is repeated"
    )
    max_alt_likeness: float = Field(
        0.9, ge=0, le=1, description="likeness of its words to the alt text's, from which it is copies_alt"
    )
    max_tokens: int = Field(120, ge=2, description="tokens of the text encoder; more are over_tokens")
    languages: tuple[str, ...] = Field((), description="ISO 639-1 codes of the languages that are wanted; none: any")
    min_language_score: float = Field(
        0.5, ge=0, le=1, description="probability from which another language is wrong_language"
    )
    max_lost_names: int = Field(0, ge=0, description="names of the alt text that a caption may lack")
    max_invented_names: int = Field(0, ge=0, description="names that neither alt text nor top_caption has")
    max_lost_numbers: int = Field(0, ge=0, description="numbers of the alt text that a caption may lack")
    max_invented_numbers: int = Field(
        0, ge=0, description="numbers in digits that neither alt text nor top_caption has"
    )
    similarity: Literal["clip_similarity", "conse"] | None = Field(
        None, description="score by which picture and caption are held beside picture and alt text; none: they are not"
    )
    margin: float = Field(0.0, ge=0, description="below_alt: the caption's score is lower than the alt text's by more")

    @field_validator("languages")
    @classmethod
    def _are_codes(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [name for name in languages if not re.fullmatch("[a-z]{2,3}", name)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no ISO 639 code; wanted such as 'en', 'de', 'zh'")
        return languages

    @field_validator("actions", mode="before")
    @classmethod
    def _flags_are_known(cls, actions: Any) -> Any:
        for flag in actions if isinstance(actions, dict) else ():
            if flag not in FLAGS:
                raise ValueError(f"no flag {flag!r}; known: {', '.join(FLAGS)}")
            if flag == CORPUS and actions[flag] == "retry":
                raise ValueError(
                    f"{flag} = 'retry': it is known when all attempts are made; choices: keep, fall_back, drop_caption"
                )
        return actions

    @property
    def second_seed(self) -> int:
        """Return the seed of second attempts; 0 asks for the most likely words, as first attempts do."""
        return self.retry_seed or (0 if self.retry_prompt else 1)

    def action(self, flag: str) -> Action:
        """Return what follows a flag."""
        return self.actions.get(flag, DEFAULT_ACTIONS[flag])

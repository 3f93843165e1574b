"""Ten thousand captions, good ones and ones with planted faults of known kinds, made by rules from a seed."""

import random
from dataclasses import dataclass

EXACT = {
    "empty": "empty",
    "white_space": "empty",
    "one_word": "too_short",
    "two_letters_of_chinese": "too_short",
    "apology": "refusal",
    "language_model": "refusal",
    "no_image": "refusal",
    "asks_for_the_picture": "refusal",
    "word_loop": "repeated",
    "phrase_loop": "repeated",
    "same_sentence_twice": "repeated",
    "cut_off": "truncated",
    "control_character": "non_printable",
    "replacement_character": "non_printable",
    "other_language": "wrong_language",
    "role_marker": "prompt_leak",
    "chat_token": "prompt_leak",
    "prompt_words": "prompt_leak",
    "alt_text_again": "copies_alt",
    "too_many_tokens": "over_tokens",
    "lost_number": "lost_numbers",
    "made_up_number": "invented_numbers",
    "same_caption_everywhere": "repeated_in_corpus",
}
"""Kind of fault -> the flag that has to find all of them, and nothing else."""
MEASURED = {
    "empty_opening": "boilerplate",
    "nearly_the_alt_text": "copies_alt",
    "lost_name": "lost_names",
    "made_up_name": "invented_names",
    "worse_than_the_alt_text": "below_alt",
}
"""Kinds that are told by rules of thumb: found as far as `FLOORS` says."""
_THINGS = "cat dog horse boat bridge church lamp table bicycle garden river mountain street market"
_LOOKS = "red blue old small wooden bright quiet empty narrow tall white dark green large"
_NAMES = "Berlin Nairobi Lisbon Amelia Rodrigo Kyoto Fatima Oslo Mumbai Ingrid"
THINGS, LOOKS, NAMES = _THINGS.split(), _LOOKS.split(), _NAMES.split()
DOES = ("stands", "sits", "lies", "rests", "waits", "leans", "shines", "rises")
PLACES = "beside a wall|under a tree|near the water|in the snow|on a hill|behind a fence|before a window|in soft light"
PROMPT = "Describe this image in as much detail as possible"


@dataclass(frozen=True)
class Planted:
    """One caption: its text, whether it stopped at the limit, the alt text and top_caption beside it, its kind of fault
    ("" for a good one), tokens, language, scores of caption and alt text, pictures that share it."""

    text: str
    kind: str = ""
    at_limit: bool = False
    alt: str = ""
    top_caption: str = ""
    language: str = "en"
    scores: tuple[float, float] = (0.3, 0.3)
    pictures: int = 1

    @property
    def tokens(self) -> int:
        """Return a count that grows as a tokenizer's does: four thirds of a word."""
        return 1 + len(self.text.split()) * 4 // 3


def planted(count: int = 10_000, share: float = 0.2, seed: int = 0) -> list[Planted]:
    """Return `count` captions, `share` of them with a fault, all kinds alike."""
    rng = random.Random(seed)
    kinds = [*EXACT, *MEASURED]
    faulty = round(count * share)
    made = [_faulty(kinds[number % len(kinds)], rng) for number in range(faulty)]
    made += [_good(rng) for _ in range(count - faulty)]
    rng.shuffle(made)
    return made


def _words(rng: random.Random, sentences: int) -> str:
    """Return sentences no two of which share a thing, or, as far as there are enough, a look or a place."""
    shuffled = [rng.sample(part, len(part)) for part in (LOOKS, THINGS, DOES, PLACES.split("|"))]
    found = []
    for number in range(sentences):
        look, thing, does, place = (part[number % len(part)] for part in shuffled)
        found.append(f"{'An' if look[0] in 'aeiou' else 'A'} {look} {thing} {does} {place}.")
    return " ".join(found)


def _good(rng: random.Random) -> Planted:
    """Return a caption that keeps its alt text's name and number, quotes a sign, stops at the limit with a whole
    sentence, or is a Chinese one: all of it lawful."""
    text = _words(rng, rng.randint(1, 4))
    name, number = rng.choice(NAMES), rng.randint(3, 900)
    which = rng.randrange(8)
    if which == 0:
        return Planted(f"{text} It is house no. {number} in {name}.", alt=f"the house at {number} in {name} for sale")
    if which == 1:
        return Planted(f'{text} A sign says "I\'m sorry, no image" in red.', alt="a sign in a park")
    if which == 2:
        return Planted(text, at_limit=True, alt="stock picture")
    if which == 3:
        return Planted(f"{text} The road is {number}.5 km long.", alt=f"walk of {number}.5 km")
    if which == 4:
        return Planted(
            f"{text} St. Paul stands there, and there are 1,{number:03d} steps.", alt=f"1{number:03d} steps up"
        )
    return Planted(text, alt="a picture from our holidays", scores=(0.3, 0.29))


def _faulty(kind: str, rng: random.Random) -> Planted:
    text = _words(rng, 2)
    name, number = rng.choice(NAMES), rng.randint(11, 900)
    first, _, rest = text.partition(". ")
    made = {
        "empty": Planted(""),
        "white_space": Planted(" \n\t "),
        "one_word": Planted(rng.choice(THINGS).capitalize() + "."),
        "two_letters_of_chinese": Planted("小猫。", language="zh"),
        "apology": Planted(f"I'm sorry, but I can't describe this {rng.choice(THINGS)}."),
        "language_model": Planted(f"As an AI language model, I have no eyes. {text}"),
        "no_image": Planted("There is no image provided, so nothing can be said."),
        "asks_for_the_picture": Planted("Please upload the picture, and the answer will follow."),
        "word_loop": Planted(f"{first} {' '.join(['very'] * rng.randint(4, 9))} {rest}"),
        "phrase_loop": Planted(f"{first}. " + "It is on the left, " * rng.randint(4, 8) + "it seems."),
        "same_sentence_twice": Planted(f"{first}. {rest} {first}."),
        "cut_off": Planted(text.rstrip(".") + " and a", at_limit=True),
        "control_character": Planted(text.replace(" ", "\x07 ", 1)),
        "replacement_character": Planted(text.replace(" ", " \ufffd", 1)),
        "other_language": Planted("Eine Katze sitzt vor einem Fenster und schaut hinaus.", language="de"),
        "role_marker": Planted(f"{text} USER: what else?"),
        "chat_token": Planted(f"{text}<|im_end|>"),
        "prompt_words": Planted(f"{text} {PROMPT}."),
        "alt_text_again": Planted(text, alt=text.lower().rstrip(".")),
        "too_many_tokens": Planted(" ".join(_words(rng, 12).split(". ")[:12]) + "."),
        "lost_number": Planted(text, alt=f"picture number {number} of our set"),
        "made_up_number": Planted(f"{text} A sign shows {number}.", alt="a sign"),
        "same_caption_everywhere": Planted("A quiet street lies in soft light.", pictures=4000),
        "empty_opening": Planted(
            rng.choice(
                ("The image shows ", "In this picture we can see ", "This is a photo of ", "The photo captures ")
            )
            + text[0].lower()
            + text[1:]
        ),
        "nearly_the_alt_text": Planted(text, alt=text.replace(" a ", " one ", 1).lower()),
        "lost_name": Planted(text, alt=f"a walk through {name} in spring"),
        "made_up_name": Planted(f"{text} Behind it lies {name}.", alt="a walk in spring"),
        "worse_than_the_alt_text": Planted(text, alt="a walk in spring", scores=(0.2, 0.3)),
    }[kind]
    return Planted(**{**made.__dict__, "kind": kind})

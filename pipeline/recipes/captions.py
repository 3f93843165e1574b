"""Say which captions a recipe makes, and which of them its tiers train on."""

import re

from captioning.prompts import Prompt
from manifests.weights import STAND_IN
from pipeline.recipes.schema import Recipe, TierSection

OF_INPUT = ("alt", "top_caption")
"""Sources of captions that came with the input."""
RECAPTION = "recaption"
"""The source that stands for the first captioner, in the tier's order, that has a caption of the picture."""
SHORT, FIT = "_short", "_fit"
"""Behind a captioner's name: its first sentence; its leading sentences that fit into the text encoder."""
NAME = re.compile(r"[A-Za-z0-9]\w*", re.ASCII)


def captioners_of(tier: TierSection) -> tuple[str, ...]:
    """Return the captioners of a tier in order of preference."""
    asked = tier.caption or ()
    return (asked,) if isinstance(asked, str) else tuple(asked)


def caption_setting(tier: TierSection) -> str | list[str] | None:
    """Return a tier's captioners as a key holds them: the name of one alone, as it always did."""
    names = list(captioners_of(tier))
    return names if len(names) > 1 else next(iter(names), None)


def captioners(recipe: Recipe) -> dict[str, list[str]]:
    """Return captioner -> the tiers that ask for it."""
    asked: dict[str, list[str]] = {}
    for tier, section in recipe.tier.items():
        for name in captioners_of(section):
            asked.setdefault(name, []).append(tier)
    return asked


def caption_sources(tiers: dict[str, TierSection]) -> tuple[str, ...]:
    """Return the sources of captions that pairs of these tiers may have, as training and stored features name them."""
    names = dict.fromkeys(name for tier in tiers.values() for name in captioners_of(tier))
    made = [name + end for name in names for end in ("", SHORT, FIT)]
    return (*OF_INPUT, *((RECAPTION, RECAPTION + SHORT) if made else ()), *made)


def weights_of_captions(recipe: Recipe, tier: str | None = None) -> dict[str, float]:
    """Return caption source -> weight by which a tier is trained, that of [train] where none is named: `train.captions`
    where it is given, else the tier's own, else the alt text alone."""
    section = recipe.tier.get(tier or recipe.train.tier)
    return recipe.train.captions or (section.captions if section else None) or {"alt": 1.0}


def untrained_captions(recipe: Recipe, tier: str | None = None) -> list[str]:
    """Return a warning for each tier, or for the one that is named, whose captions are made and whose training draws
    none of them. What stand-ins say is nobody's to train on."""
    found = []
    for name, section in recipe.tier.items() if tier is None else [(tier, recipe.tier[tier])]:
        weights = weights_of_captions(recipe, name)
        asked = [one for one in captioners_of(section) if not _is_stand_in(recipe, one)]
        made = {one + end for one in (*asked, RECAPTION) for end in ("", SHORT, FIT)}
        if asked and not any(weight for source, weight in weights.items() if source in made):
            told = ", ".join(f"{source} = {weight:g}" for source, weight in weights.items())
            found.append(
                f"warning: tier {name}: {', '.join(asked)} writes captions and training draws none of them ({told});"
                f" say which with tier.{name}.captions, such as {{ {asked[0]} = 0.7, {asked[0]}{SHORT} = 0.3 }}"
            )
    return found


def _is_stand_in(recipe: Recipe, captioner: str) -> bool:
    options = recipe.caption.options(captioner)
    return options.get("model") == STAND_IN or "stand_in" in (captioner, options.get("use"))


def fault_of_name(name: str) -> str:
    """Return what is wrong with a captioner's name, or nothing: it names files and sources of captions."""
    if not NAME.fullmatch(name):
        return "wanted letters, digits and underscores, the first no underscore: it names files"
    if name in (*OF_INPUT, RECAPTION) or name.endswith((SHORT, FIT)):
        return f"a caption's source is called so: {', '.join((*OF_INPUT, RECAPTION))}, …{SHORT}, …{FIT}"
    return ""


def prompts_of(recipe: Recipe) -> dict[str, Prompt]:
    """Return the recipe's own prompts by name."""
    return {
        name: Prompt(name, prompt.text, "the recipe", prompt.without) for name, prompt in recipe.caption.prompts.items()
    }

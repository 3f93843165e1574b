"""Start a run from weights alone: `train.init_from`, such as the first stage's for the second.

A larger grid extends a smaller one's rotary table (`gpt.rope_tables`), and no weight depends on the grid.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.gpt import GPT
from pipeline.recipes.schema import RecipeError
from pipeline.training.checkpoint import put_weights
from pipeline.training.weights import GPTFacts, Weights, facts_of, read_weights

SHAPES = ("model", "condition", "vocab", "cond_len", "cond_dim", "classes")


def weights_to_start_from(source: str, ema: bool, wanted: GPTFacts) -> Weights:
    """Return weights that a run may start from. Raises WeightsError for a missing, damaged or unsafe file or another
    thing than a GPT, and RecipeError, naming the setting to use, for another GPT than the recipe's."""
    weights = read_weights(source, ema=ema)
    facts = facts_of(weights)
    other = [name for name in SHAPES if getattr(facts, name) != getattr(wanted, name)]
    if other:
        told = ", ".join(f"{name} {getattr(facts, name)!r}, not {getattr(wanted, name)!r}" for name in other)
        raise RecipeError(f"train.init_from: {weights.says} is {facts.says}: {told}")
    if facts.rope_cond != wanted.rope_cond:
        origin = "" if weights.header else ", as all of LlamaGen's"
        raise RecipeError(
            f"train.init_from: {weights.says} was trained with rope_cond {facts.rope_cond!r}{origin}; the recipe says"
            f" {wanted.rope_cond!r}, with which its layers would attend to the condition as they never learned to: set"
            f" train.rope_cond = {facts.rope_cond!r}"
        )
    return weights


def start_from(gpt: GPT, weights: Weights, wanted: GPTFacts) -> list[str]:
    """Load the weights into a GPT, and return what to say: which they are, and how the run differs from theirs."""
    put_weights(gpt, weights.tensors, f"train.init_from {weights.says}")
    facts = facts_of(weights)
    said = [f"starting from the weights in {weights.says}: {facts.says}"]
    if facts.grid and wanted.grid and facts.grid != wanted.grid:
        said.append(f"  grid {facts.grid} before, {wanted.grid} now: the positions of the image are those of the new")
    if facts.tokenizer and wanted.tokenizer and facts.tokenizer["fingerprint"] != wanted.tokenizer["fingerprint"]:
        said.append(
            f"  note: its codes were made by {_named(facts.tokenizer)}, those of the shards by"
            f" {_named(wanted.tokenizer)}: what a code shows is learned anew"
        )
    if facts.text and wanted.text and facts.text != wanted.text:
        said.append(f"  note: its text features were of {facts.text}, these are of {wanted.text}")
    return said


def _named(tokenizer: Mapping[str, Any]) -> str:
    return f"{tokenizer['name']} {tokenizer['fingerprint'][:12]}…"

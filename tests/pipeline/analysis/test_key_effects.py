"""A key of the recipe changes the steps that read it, found by trying."""

import pytest
from pydantic.fields import FieldInfo

from pipeline.analysis.key_effects import UNTRIED, VALUES, changed_steps
from pipeline.analysis.recipe_page import tables


def steps_of(table: str, key: str) -> tuple[str, ...]:
    return changed_steps(f"{table}.{key}", tables()[table].model_fields[key])


@pytest.mark.parametrize(
    ("table", "key", "steps"),
    [
        ("tier.NAME", "size", ("fetch", "encode")),  # pictures are stored 1.1 times the largest tier
        ("tier.NAME", "caption", ("caption", "measure", "recaption", "remeasure", "judge", "pack")),
        ("tier.NAME", "captions", ("train",)),
        ("caption.openai", "base_url", ()),
        ("caption.openai", "model", ("caption", "recaption")),
        ("filter", "rules", ("select", "decide")),  # select judges what metadata knows
        ("filter", "exclude", ("select", "dedup")),  # rows by uid, pictures by pHash
        ("score", "use", ("select", "score", "decide")),  # a null passes select where a head fills it
        ("fetch", "deadline_s", ("fetch",)),
        ("fetch", "host_rate", ()),  # how to get there, not what is wanted
        ("pretokenize", "flip", ("encode",)),  # with the centre crop alone
        ("pretokenize", "scales", ("encode",)),  # with ten-crops alone
        ("pretokenize", "min_agreement", ("encode",)),  # with tf32, bf16 or a compiled encoder
        ("pretokenize", "shard_rows", ("pack",)),
        ("pretokenize", "decoders", ()),
        ("train", "lr", ("train",)),
        ("train", "log_every", ()),
    ],
)
def test_a_key_changes_the_steps_that_read_it(table: str, key: str, steps: tuple[str, ...]) -> None:
    assert steps_of(table, key) == steps


def test_a_key_of_which_no_other_value_is_known_is_an_error() -> None:
    with pytest.raises(LookupError, match=r"output\.unheard: no other value to try"):
        changed_steps("output.unheard", FieldInfo(annotation=str, default="a"))


def test_every_listed_key_is_one_of_the_recipe() -> None:
    keys = {f"{table}.{key}" for table, model in tables().items() for key in model.model_fields}
    assert {*VALUES, *UNTRIED} - keys == set()
    assert set(VALUES) & set(UNTRIED) == set()

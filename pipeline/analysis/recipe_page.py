"""Write the tables of docs/recipe.md from the recipe's models: `python -m pipeline.analysis.recipe_page [PAGE]`.

The page's prose is written by hand. Between `<!-- keys: TABLE -->` (or `<!-- rules -->`) and `<!-- end -->` stands
what the models say: key, type, default, meaning, and the steps that run again when the key changes.
"""

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from captioning.captioners.openai_config import OpenAIConfig
from captioning.captioners.transformers_files import TransformersConfig
from captioning.corpus.config import AuditConfig
from captioning.gate.config import GateConfig
from filters.base import FILTERS
from filters.scorers.catalog import ENCODERS, HEADS
from manifests.files import write_bytes
from pipeline.analysis.key_effects import changed_steps
from pipeline.recipes.schema import PromptSection, Recipe, TierSection

PAGE = Path(__file__).parents[2] / "docs" / "recipe.md"
BLOCK = re.compile(r"(<!-- (keys: [\w., ]+|rules) -->\n).*?(<!-- end -->)", re.DOTALL)
WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false", NoneType: "none"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def tables() -> dict[str, type[BaseModel]]:
    """Return the recipe's tables by name: sections, tiers, scorers' and captioners' options."""
    sections = {
        name: field.annotation
        for name, field in Recipe.model_fields.items()
        if name != "tier" and isinstance(field.annotation, type)
    }
    heads = {f"score.{name}": head.options for name, head in HEADS.items()}
    scorers = heads | {f"score.{name}": encoder.options for name, encoder in ENCODERS.items()}
    captions: dict[str, type[BaseModel]] = {
        "caption.prompts.NAME": PromptSection,
        "caption.gate": GateConfig,
        "caption.audit": AuditConfig,
        "caption.llava": TransformersConfig,
        "caption.openai": OpenAIConfig,
    }
    models: dict[str, type[BaseModel]] = {**sections, "tier.NAME": TierSection, **captions, **scorers}
    return {name: model for name, model in models.items() if model.model_fields}


def render(page: str) -> str:
    """Return the page with every marked table written anew. Raises KeyError for a table that no model has."""
    return BLOCK.sub(lambda match: match[1] + _block(match[2]) + match[3], page)


def _block(mark: str) -> str:
    if mark == "rules":
        return _lines(("`use`", "threshold", "default", "type", "meaning"), _rule_rows())
    names = [name.strip() for name in mark.removeprefix("keys: ").split(",")]
    if len(names) == 1:
        return _lines(HEAD, _key_rows(names[0]))
    rows = [(f"`[{name}]`", *row) for name in names for row in _key_rows(name)]
    return _lines(("table", *HEAD), rows)


HEAD = ("key", "default", "type", "meaning", "changes")


def _lines(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def _key_rows(table: str) -> list[tuple[str, ...]]:
    return [
        (
            f"`{key}`",
            _default(field),
            _cell(_type_of(field)),
            _cell(field.description or ""),
            _changes(table, key, field),
        )
        for key, field in tables()[table].model_fields.items()
        if not _is_table(field)
    ]


def _is_table(field: FieldInfo) -> bool:
    """Tell whether a key is a table, whose keys stand in rows of their own."""
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _default(field: FieldInfo) -> str:
    return "required" if field.is_required() else _shown(field.get_default(call_default_factory=True))


def _shown(value: object) -> str:
    return "none" if value is None else f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _changes(table: str, key: str, field: FieldInfo) -> str:
    return ", ".join(changed_steps(f"{table}.{key}", field)) or "nothing"


def _type_of(field: FieldInfo) -> str:
    """Return type and bounds in a recipe author's words."""
    bounds = [
        f"{sign} {getattr(one, name):,}"
        for one in field.metadata
        for name, sign in BOUNDS.items()
        if hasattr(one, name)
    ]
    return ", ".join([type_words(field.annotation), *bounds])


def type_words(kind: Any) -> str:
    """Return a type in words: `int | None` is "whole number or none"."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in args)
    if origin is list or (origin is tuple and Ellipsis in args):
        return f"list of {type_words(args[0])}"
    if origin is tuple:
        return f"list of {len(args)} {type_words(args[0])}s"
    if origin is dict or kind is dict:
        return "table"
    if args and origin is not None and hasattr(kind, "__metadata__"):
        return type_words(args[0])
    if args:
        return " or ".join(type_words(part) for part in args)
    return WORDS.get(kind, "table")


def _rule_rows() -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    ours = {use: rule for use, rule in sorted(FILTERS.items()) if rule.__module__.startswith("filters.")}
    for use, rule in ours.items():
        hints, docs = get_type_hints(rule), attribute_docs(rule)
        for field in fields(rule):
            if field.name != "name":
                default = "required" if field.default is MISSING else _shown(field.default)
                kind = type_words(hints[field.name])
                rows.append((f"`{use}`", f"`{field.name}`", default, _cell(kind), _cell(docs.get(field.name, ""))))
    return rows


def attribute_docs(kind: type) -> dict[str, str]:
    """Return field -> the string that stands below it in the class or the nearest class above."""
    found: dict[str, str] = {}
    for one in reversed([base for base in kind.__mro__ if base is not object]):
        body = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = words
    return found


def main() -> None:
    """Write the page's tables anew."""
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    write_bytes(page, render(page.read_text(encoding="utf-8")).encode())


if __name__ == "__main__":
    main()

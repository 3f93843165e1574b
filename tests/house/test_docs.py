"""The documents name nothing that is not there: commands, options, make targets, paths, recipe keys, reasons."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from tests.house.count import PACKAGES
from tests.support.command_tree import command_tree
from tests.support.paths import ROOT

DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACES = (
    "pipeline",
    "filters",
    "captioning",
    "tokenize_shards",
    "manifests",
    "tests",
    "benchmarks",
    "docs",
    "deploy",
    ".ci",
)
ROOT_FILES = r"(?:pyproject\.toml|Makefile|constraints\.txt|overrides\.txt|LICENSE|README\.md|CONTRIBUTING\.md)"
EXAMPLE = {"filters/letters.py", "tests/filters/test_letters.py"}
PLACEHOLDER = re.compile(r"\b(?:NAME|STEP|TIER|RUN)\b|journal/|plan/")
NOT_OURS = {"make", "hf", "git", "cd", "torchrun", "npm"}


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield (language, content) of the fenced blocks."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def shell_lines(text: str) -> list[str]:
    """Return the lines of blocks without a language or of a shell, without comments."""
    lines = [
        line.split("  #")[0].strip()
        for language, block in blocks(text)
        if language in ("", "sh", "bash")
        for line in block.splitlines()
    ]
    return [line.removeprefix("$ ") for line in lines if line and not line.startswith("#")]


def spans(text: str) -> list[str]:
    """Return the code spans outside blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def commands(text: str) -> list[str]:
    return [
        piece
        for piece in (*shell_lines(text), *spans(text))
        if re.match(r"(make|pipeline|python -m|\.ci/)\b ?", piece) and " " in piece
    ]


@pytest.fixture(scope="module")
def tree() -> dict[str, set[str]]:
    return command_tree()


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_commands_exist(doc: Path, tree: dict[str, set[str]]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in commands(doc.read_text()):
        words = command.split()
        if words[0] == "make":
            assert words[1] in targets, f"{command!r}: targets are {sorted(targets)}"
        elif words[0] == "python" and words[2] == "pytest":
            continue
        elif words[0] == "python":
            module = ROOT / words[2].replace(".", "/")
            assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file(), command
            check_options(command, tree.get(" ".join(words[:3])))
        elif words[0] == "pipeline":
            name = "pipeline" if words[1].startswith("-") else f"pipeline {words[1]}"
            name = " ".join(words[:3]) if " ".join(words[:3]) in tree else name
            assert name in tree, f"{command!r}: commands are {sorted(tree)}"
            check_options(command, tree[name])


def check_options(command: str, known: set[str] | None) -> None:
    used = {word.split("=")[0] for word in re.split(r"\s-- ", command)[0].split() if word.startswith("--")}
    assert known is None or used <= known, f"{command!r}: options are {sorted(known or ())}"


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_options_in_passing_exist(doc: Path, tree: dict[str, set[str]]) -> None:
    known = set.union(*tree.values())
    used = {span.split()[0].split("=")[0] for span in spans(doc.read_text()) if span.startswith("--")}
    assert used <= known


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_shell_lines_start_with_a_known_program(doc: Path) -> None:
    programs = {line.split()[0] for line in shell_lines(doc.read_text()) if re.match(r"[a-z.]+ ", line)}
    assert {
        name for name in programs if name in NOT_OURS or name in ("pipeline", "python", "pip", "uv", "source")
    } == programs


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_paths_exist(doc: Path) -> None:
    text = doc.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if not link.startswith("http")]
    for link in links:
        assert (doc.parent / link).exists(), f"{doc.name}: link to {link}"
    ours = re.compile(
        rf"(?:{'|'.join(map(re.escape, PLACES))})/(?:[\w./-]+\.(?:py|md|toml|png|safetensors)|[\w./-]*/)?|{ROOT_FILES}"
    )
    missing = [
        span
        for span in spans(text)
        if ours.fullmatch(span) and not PLACEHOLDER.search(span) and not (ROOT / span).exists()
    ]
    assert set(missing) <= EXAMPLE


def test_the_first_command_stands_by_line_20() -> None:
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:20]) + "\n```"
    assert [line for line in shell_lines(head) if line.startswith("make ")]


def recipe_tables() -> dict[str, Any]:
    from captioning.captioners.openai_config import OpenAIConfig
    from captioning.captioners.transformers_files import TransformersConfig
    from captioning.corpus.config import AuditConfig
    from captioning.gate.config import GateConfig
    from pipeline.recipes.schema import Recipe, TierSection

    models = {name: field.annotation for name, field in Recipe.model_fields.items()}
    captions: dict[str, Any] = {
        "caption.llava": TransformersConfig,
        "caption.openai": OpenAIConfig,
        "caption.gate": GateConfig,
        "caption.audit": AuditConfig,
    }
    return {**models, "tier": TierSection, **captions}


@pytest.mark.parametrize(
    "table",
    [
        "input",
        "output",
        "fetch",
        "filter",
        "score",
        "dedup",
        "decontaminate",
        "tier",
        "caption",
        "caption.llava",
        "caption.openai",
        "caption.gate",
        "caption.audit",
        "pretokenize",
        "train",
        "runner",
    ],
)
def test_every_recipe_key_stands_in_its_table_with_its_default(table: str) -> None:
    text = (ROOT / "docs" / "recipe.md").read_text()
    heading = "## [tier.NAME]" if table == "tier" else f"`[{table}]`" if "." in table else f"## [{table}]"
    section = re.split(r"\n## |\n`\[", text[text.index(heading) :])[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE))
    for key, field in recipe_tables()[table].model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            continue  # a table with rows of its own
        default = field.get_default(call_default_factory=True)
        wanted = "required" if field.is_required() else "none" if default is None else f"`{json.dumps(default)}`"
        assert rows.get(key) == wanted, f"[{table}] {key}: docs/recipe.md says {rows.get(key)}, the code {wanted}"


def test_the_recipe_page_covers_every_table() -> None:
    from pipeline.recipes.schema import Recipe

    text = (ROOT / "docs" / "recipe.md").read_text()
    assert [name for name in Recipe.model_fields if f"## [{name}" not in text] == []


def test_every_filter_head_and_prompt_stands_in_the_recipe_page() -> None:
    from captioning.prompts import PROMPTS
    from filters.base import known_filters
    from filters.scorers.catalog import HEADS
    from tokenize_shards.catalog import VQ_SPECS

    text = (ROOT / "docs" / "recipe.md").read_text()
    names = [*known_filters(), *HEADS, *PROMPTS, *VQ_SPECS]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_option_of_a_scorer_stands_in_the_recipe_page() -> None:
    from filters.scorers.catalog import ENCODERS, HEADS

    rows = re.findall(
        r"^\| `\[score\.(\w+)\]` \| `(\w+)` \| `(.*?)` \|", (ROOT / "docs" / "recipe.md").read_text(), re.MULTILINE
    )
    models = {name: entry.options for name, entry in (HEADS | ENCODERS).items()}
    wanted = {
        (name, key, json.dumps(field.default))
        for name, model in models.items()
        for key, field in model.model_fields.items()
    }
    assert set(rows) == wanted


def reasons() -> tuple[set[str], set[str]]:
    """Return (reasons that docs/reasons.md explains, those among them that it calls reserved)."""
    text = (ROOT / "docs" / "reasons.md").read_text()
    listed = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert len(listed) == len(set(listed))
    return set(listed), {
        name for line in text.splitlines() if "are reserved:" in line for name in re.findall(r"`(\w+)`", line)
    }


def test_every_reason_is_explained_and_none_is_made_up() -> None:
    from captioning.gate.config import FLAGS
    from filters.base import known_filters
    from manifests.reasons import IMAGE

    listed, reserved = reasons()
    rules = set(known_filters())
    assert rules | set(IMAGE) <= listed
    source = "\n".join(
        path.read_text()
        for package in ("filters", "captioning", "pipeline")
        for path in (ROOT / package).rglob("*.py")
        if "demo" not in path.parts
    )
    given = {name for name in listed - rules - {"http_404"} if re.search(rf"""["']{name}["']""", source)}
    given |= {f"caption_{flag}" for flag in FLAGS}
    assert listed - rules - {"http_404"} - given == reserved


@pytest.mark.parametrize("group", ["input", "fetch", "image", "set", "caption"])
def test_the_tables_of_the_reasons_page_are_the_table_of_reasons(group: str) -> None:
    from manifests.reasons import REASONS

    text = (ROOT / "docs" / "reasons.md").read_text()
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (own,) = [part for part in section if part.startswith(f"{group.capitalize()}\n")]
    listed = [name for name in re.findall(r"^\| `(\w+)` \|", own, re.MULTILINE) if name != "http_404"]
    assert listed == [reason.name for reason in REASONS.values() if reason.group == group]


def test_the_reasons_page_says_whose_uid_is_null() -> None:
    from manifests.reasons import WITHOUT_ROW

    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (ROOT / "docs" / "reasons.md").read_text(), re.MULTILINE)
    assert {name for name, text in rows if "uid" in text and "null" in text} == set(WITHOUT_ROW) - {"removed"}


def test_the_rules_of_the_reasons_page_are_the_filters() -> None:
    from filters.base import FILTERS

    text = (ROOT / "docs" / "reasons.md").read_text().partition("## Rules")[2].partition("\n## ")[0]
    ours = {use for use, rule in FILTERS.items() if rule.__module__.startswith("filters.")}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == ours


def test_what_may_have_passed_is_listed_where_asking_again_is_explained() -> None:
    from manifests.reasons import TRANSIENT

    text = (ROOT / "docs" / "run-folder.md").read_text()
    (line,) = [line for line in text.splitlines() if "may have passed" in line]
    assert set(re.findall(r"`(\w+)`", line)) - {"transient"} == set(TRANSIENT)


def test_the_floors_of_the_documents_are_the_floors_of_the_code() -> None:
    from tests.house.count import FLOORS

    by_table = {}
    for floor, cell in re.findall(r"^\| (\d) \| (.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE):
        for name in re.findall(r"`([\w/.]+)`", cell):
            by_table[name.removesuffix("/").removesuffix(".py").replace("/", ".")] = int(floor)
    assert by_table == FLOORS
    lines = re.findall(r"^ (\d)  (.*)$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    assert {name: int(floor) for floor, names in lines for name in names.split()} == FLOORS


def test_the_architecture_page_says_of_every_step_what_a_rerun_does() -> None:
    from pipeline.stages.registry import STAGES

    rows = re.findall(r"^\| ([\w, ]+) \| .+ \| .+ \|$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    named = {name for cell in rows for name in cell.split(", ")}
    assert named >= {step.name for steps in STAGES.values() for step in steps} | {"train", "remove", "repair"}


OLD_WORDS = r"ghost|shadow|grave|nursery|nursling|entomb|salvage|excise"


OLD_NAMES = r"(?<![a-z])(?:ghosts?|shadows?|graves?|nursery|nursling|entomb\w*|salvaged?|excised?|deadly|_?judged?\()"
"""In code, where a letter before may belong to another word; judge only as the name of a function."""


@pytest.mark.parametrize("doc", DOCS, ids=lambda path: path.name)
def test_old_words_are_gone(doc: Path) -> None:
    assert re.findall(OLD_WORDS, doc.read_text(), re.IGNORECASE) == []


def test_old_words_are_gone_from_the_code() -> None:
    paths = [path for name in (*PACKAGES, "tests", "benchmarks") for path in sorted((ROOT / name).rglob("*.py"))]
    texts = {path: path.read_text(encoding="utf-8") for path in paths if path != Path(__file__)}
    assert len(texts) > 200
    old = {str(path): words for path, text in texts.items() if (words := re.findall(OLD_NAMES, text, re.IGNORECASE))}
    assert old == {}


def test_modules_named_in_the_documents_are_there() -> None:
    named = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+")
    for doc in (one for one in DOCS if one.name != "CHANGELOG.md"):
        text = doc.read_text()
        for name in {match[0] for span in (*spans(text), *shell_lines(text)) for match in named.finditer(span)}:
            parts = name.split(".")
            ends = [ROOT.joinpath(*parts[:size]) for size in (len(parts), len(parts) - 1)]
            assert any(end.with_suffix(".py").is_file() or end.is_dir() for end in ends), f"{doc.name}: {name}"


def test_the_vocabulary_of_faults_is_the_designs() -> None:
    from captioning.gate.config import FLAGS
    from filters.base import known_filters

    listed, _ = reasons()
    assert listed - set(known_filters()) == {
        *("bad_url", "missing_value", "broken_row_group", "broken_line", "broken_tar", "not_in_table"),
        *("missing_file", "blocked_path"),
        *(
            "blocked_scheme",
            "blocked_address",
            "host_down",
            "dns",
            "connection",
            "tls",
            "timeout",
            "bad_response",
            "http_404",
            "too_many_redirects",
        ),
        *("too_large", "incomplete_body", "empty_body", "robots", "opted_out"),
        *("not_an_image", "too_many_pixels", "animated", "truncated", "corrupt"),
        *("exact_duplicate", "near_duplicate", "placeholder", "in_eval_set", "removed", "worker_died"),
        *(f"endpoint_{fault}" for fault in ("busy", "timeout", "connection", "bad_answer", "refused")),
        *("captioner_failed", *(f"caption_{flag}" for flag in FLAGS)),
    }


def test_the_filter_of_contributing_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util
    import sys

    import filters.base

    module_text, test_text, _ = [
        block for language, block in blocks((ROOT / "CONTRIBUTING.md").read_text()) if language == "python"
    ]
    assert len(module_text.splitlines()) <= 30
    monkeypatch.setattr(filters.base, "FILTERS", dict(filters.base.FILTERS))
    (tmp_path / "letters.py").write_text(module_text)
    spec = importlib.util.spec_from_file_location("filters.letters", tmp_path / "letters.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "filters.letters", module)
    spec.loader.exec_module(module)
    names: dict[str, Any] = {}
    exec(test_text, names)
    names["test_letters"]()


def test_the_users_own_filter_of_contributing_works(tmp_path: Path) -> None:
    import tomllib

    import pyarrow as pa

    from pipeline.recipes.load import load_recipe
    from pipeline.recipes.rules import build_rules

    text = (ROOT / "CONTRIBUTING.md").read_text()
    module_text = [block for language, block in blocks(text) if language == "python"][2]
    recipe_text = next(block for language, block in blocks(text) if language == "toml")
    assert len(module_text.splitlines()) <= 30
    (tmp_path / tomllib.loads(recipe_text)["filter"]["python"][0]).write_text(module_text)
    (tmp_path / "recipe.toml").write_text(f"{recipe_text}[tier.all]\nsize = 64\n")
    (rule,) = build_rules(load_recipe(tmp_path / "recipe.toml")).everywhere
    load_recipe("laion_coco")  # lets the filter go: other tests list all that are known
    urls = [
        "http://pictures.example/1.jpg",
        "https://pictures.example:8/1.jpg",
        "http://elsewhere.example/pictures.example",
        "no url",
        None,
    ]
    assert rule.keep(pa.RecordBatch.from_pydict({"url": urls})).to_pylist() == [False, False, True, None, None]


def test_the_recipes_and_the_captioner_of_the_captions_page_work(tmp_path: Path) -> None:
    import tomllib

    from captioning.base import build_captioner
    from captioning.captioner import Ask
    from pipeline.recipes.captions import captioners
    from pipeline.recipes.load import load_recipe, parse_recipe
    from pipeline.recipes.user_captioners import captioner_options

    text = (ROOT / "docs" / "captions.md").read_text()
    made = [block for language, block in blocks(text) if language == "toml"]
    (module,) = [block for language, block in blocks(text) if language == "python"]
    assert [list(captioners(parse_recipe(tomllib.loads(block)))) for block in made[:-1]] == [
        ["qwen", "llava"],
        ["llava"],
        ["far"],
    ]
    (tmp_path / tomllib.loads(made[-1])["caption"]["python"][0]).write_text(module)
    (tmp_path / "recipe.toml").write_text(made[-1])
    mine = build_captioner("mine", captioner_options(load_recipe(tmp_path / "recipe.toml"), "mine"))
    assert [answer.text for answer in mine.answers([Ask(b"u", b"12", "?")])] == ["A photo of 2 bytes."]
    parse_recipe({"tier": {"all": {"size": 64}}})


def test_the_captions_page_names_every_kind_and_its_promise() -> None:
    from captioning.base import KINDS

    rows = re.findall(
        r"^\| `(\w+)`[^|]*\|[^|]*\| ([^|]+) \|$", (ROOT / "docs" / "captions.md").read_text(), re.MULTILINE
    )
    assert {name: promise for name, promise in rows if name in KINDS} == {
        name: entry.promise for name, entry in KINDS.items()
    }

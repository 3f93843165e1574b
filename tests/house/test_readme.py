"""What the README tells the reader to type works as it stands."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from manifests.files import read_table
from tests.support.keep_runs import without_beam
from tests.support.paths import ROOT
from tests.support.small_web import Web, jpeg, picture

README = (ROOT / "README.md").read_text(encoding="utf-8")
SIDES = {"large": (300, 260), "wide": (1000, 260), "small": (200, 200)}
"""Pictures by name: kept; 3.8 times as wide as high (3 are allowed); a short side of 200 px (256 are asked)."""


def test_the_recipe_of_five_lines_runs_as_it_stands(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.cli import app

    monkeypatch.chdir(tmp_path)
    web.pages.update({f"/readme-{name}.jpg": jpeg(picture(200, *sides)) for name, sides in SIDES.items()})
    urls = [f"http://pictures.test/readme-{name}.jpg" for name in (*SIDES, "none", "large")]
    Path("urls.txt").write_text("\n".join(urls) + "\n")
    (recipe,) = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(recipe.splitlines()) == 5
    Path("recipe.toml").write_text(recipe)
    only_here = [f'fetch.connect_to={{ "pictures.test" = "{web}" }}', 'fetch.allow_addresses=["127.0.0.0/8"]']
    with without_beam():
        result = CliRunner().invoke(app, ["run", "--stage", "filter", "--set", only_here[0], "--set", only_here[1]])
    assert result.exit_code == 0, result.output
    (final,) = Path("runs/mine/ledger/final").glob("*.parquet")
    rows = read_table(final, ["url", "reason"]).to_pylist()
    assert [(row["url"], row["reason"]) for row in rows[:4]] == list(
        zip(urls[:4], [None, "aspect", "size", "http_404"], strict=True)
    )
    assert rows[4]["reason"] == "exact_duplicate"


def test_make_demo_stands_by_line_20() -> None:
    assert "make demo" in README.splitlines()[:20]


def test_the_map_names_every_folder_and_module_of_the_package() -> None:
    (block,) = re.findall(r"^```text\n(manifests/.*?)^```", README, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"^  (\w+)/ ", block, re.MULTILINE))
    assert named == {path.parent.name for path in (ROOT / "pipeline").glob("*/__init__.py")}
    assert set(re.findall(r"\w+\.py", block)) == {
        path.name for path in (ROOT / "pipeline").glob("*.py") if path.name != "__init__.py"
    }


def test_the_extras_named_are_those_there_are() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (line,) = [line for line in README.splitlines() if line.startswith("The extras are ")]
    assert set(re.findall(r"`(\w+)`", line)) == set(extras)

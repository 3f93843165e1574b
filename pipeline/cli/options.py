"""Options that several commands share, and how they open a recipe; nothing heavy is imported here."""

from pathlib import Path
from typing import Annotated, Any

import typer


def _given(text: str | None) -> str | None:
    """Refuse an empty word: a shell's variable that is not set, which would be taken for no option."""
    if text is not None and not text.strip():
        raise typer.BadParameter("is empty; leave the option out, or give it a value")
    return text


def local_path(text: str) -> Path:
    """Return the path of a file or folder of this machine that an option names. Raises BadParameter for a URL."""
    if "://" in text:
        raise typer.BadParameter(f"{text}: a URL; wanted a file or folder of this machine")
    return Path(text)


RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        callback=_given,
        metavar="FILE",
        help="Recipe: a TOML file, or a bundled one (demo, demo_artworks, laion_coco, laion_coco_512).",
    ),
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "--out",
        callback=_given,
        metavar="DIR",
        help="Run folder, or a URL such as s3://BUCKET/FOLDER, instead of the recipe's output.root.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a recipe value, e.g. tier.pretrain.rules.aesthetic.min=5.0; repeatable.",
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its URL.")]
OtherRecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", callback=_given, metavar="FILE", help="Recipe, instead of the one in the run folder."),
]
MOST_JOBS = 1024
"""Threads beyond this number only use up the machine's."""
JobsOption = Annotated[
    int, typer.Option("--jobs", "-j", min=0, max=MOST_JOBS, help="Threads that read and hash; 0: one per core.")
]
WorkersOption = Annotated[int, typer.Option(min=0, help="Worker processes; 0: one per core, or per GPU.")]


def run_folder(folder: str, *, writes: bool = False) -> Path:
    """Return the path of a run folder that a command names, local or a URL. Raises RootError where its store cannot be
    used as the command does."""
    from manifests.roots import check_root, root_of

    root = root_of(folder)
    check_root(root, writes=writes)
    return root


def named_file(name: str) -> Path:
    """Return the path of a file that a command reads, local or a URL. Raises RootError where its store cannot be
    used."""
    from manifests.roots import check_root, place_of

    path = place_of(name)
    check_root(path, writes=False)
    return path


def open_recipe(recipe: str | None, out: str | None, sets: list[str] | None) -> Any:
    """Read the recipe that a command which writes names, say on stderr which it is, and return it.

    Raises RecipeError for a fault in it, RootError where its run folder cannot be.
    """
    from pipeline.demo.pictures import has_emoji
    from pipeline.recipes.load import choose_recipe, load_recipe

    if recipe:
        named_file(recipe)  # it may lie in a store
    path, says = (recipe, f"recipe: {recipe}") if recipe else choose_recipe(has_emoji)
    read = load_recipe(path, [*(sets or []), *([f"output.root={_toml_text(out)}"] if out else [])])
    run_folder(read.output.root, writes=True)
    typer.echo(says, err=True)
    return read


def _toml_text(text: str) -> str:
    """Return a text as a basic string of TOML, which has JSON's escapes but for surrogates."""
    import json

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def recipe_of(out: str | None) -> str | None:
    """Return the resolved recipe of a run folder, for commands that only look at one. Raises RootError."""
    if not out:
        return None
    path = run_folder(out) / "recipe.toml"
    return str(path) if path.is_file() else None


def open_run(recipe: str | None, out: str | None, sets: list[str] | None) -> Any:
    """Return the recipe that a question about a run is asked with: the named one, else the one that the run folder was
    made with.

    The run folder is `--out`, else that of the recipe found. Raises RecipeError for a fault in a recipe, RootError
    where the run folder cannot be. Says nothing on stdout.
    """
    from pipeline.demo.pictures import has_emoji
    from pipeline.recipes.load import choose_recipe, load_recipe

    def read(path: Any, settings: list[str]) -> Any:
        return load_recipe(path, [*(sets or []), *settings])

    if recipe:
        named_file(recipe)
        named = read(recipe, [f"output.root={_toml_text(out)}"] if out else [])
        run_folder(named.output.root)
        return named
    root = out or load_recipe(choose_recipe(has_emoji)[0]).output.root
    within = recipe_of(root)
    return read(within or choose_recipe(has_emoji)[0], [f"output.root={_toml_text(root)}"])

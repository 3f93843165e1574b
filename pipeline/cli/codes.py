"""The commands that look at codes and carry them to and from LlamaGen: `pipeline show`, `pipeline export`, `pipeline
import`."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.errors import exit_codes, fail
from pipeline.cli.options import local_path, named_file, run_folder
from pipeline.cli.output import JsonOption, note, result

if TYPE_CHECKING:
    from pipeline.llamagen.export import Exported

show = typer.Typer(no_args_is_help=True, help="Look at what a run holds.")
export = typer.Typer(no_args_is_help=True, help="Write a run's codes in another project's layout.")
import_ = typer.Typer(no_args_is_help=True, help="Read codes from another project's layout.")

Weights = Annotated[str | None, typer.Option(metavar="FILE", help="Tokenizer weights, instead of the run's recipe.")]


@show.command("codes")
@exit_codes()
def show_codes_command(
    tar: Annotated[str, typer.Argument(metavar="SHARD", help="A shard of codes: RUN/codes/TIER/00000.tar.")],
    n: Annotated[int, typer.Option("--n", min=1, help="How many samples.")] = 16,
    sheet: Annotated[
        Path | None,
        typer.Option(
            parser=local_path, metavar="PNG", help="Where to write the sheet; else codes-TIER-NUMBER.png here."
        ),
    ] = None,
    vq: Annotated[str | None, typer.Option(metavar="NAME", help="Tokenizer, instead of the run's recipe.")] = None,
    weights: Weights = None,
    as_json: JsonOption = False,
) -> None:
    """Write a contact sheet: picture, what the codes make of it, difference, PSNR; and say how the codebook is used."""
    from pipeline.evaluation.reconstruction import show_codes
    from tokenize_shards.vq import load_vq

    shard = named_file(tar)
    if not shard.is_file():
        fail(f"show: no shard {str(shard)!r}; wanted RUN/codes/TIER/NUMBER.tar")
    name, file = _tokenizer_of(shard, vq, weights)
    shown = show_codes(shard, load_vq(name, file), n, sheet or Path(f"codes-{shard.parent.name}-{shard.stem}.png"))
    use = shown.use
    says = [f"  {uid}  {decibels:6.2f} dB" for uid, decibels in shown.psnr.items()]
    says += [
        f"{use.codes:,} codes, {use.used:,} of {use.size:,} used ({use.used / use.size:.1%}), perplexity"
        f" {use.perplexity:,.1f}",
        f"sheet: {shown.path}",
    ]
    result(as_json, {"sheet": shown.path, "psnr_db": shown.psnr, "codebook": asdict(use)}, says)


def _tokenizer_of(shard: Path, vq: str | None, weights: str | None) -> tuple[str, str]:
    """Return (name, weights) from the options, else from the recipe of the run that the shard lies in."""
    from pipeline.evaluation.reconstruction import run_of
    from pipeline.recipes.load import load_recipe
    from pipeline.recipes.schema import RecipeError

    path = run_of(shard) / "recipe.toml"
    if vq and weights:
        return vq, weights
    if not path.is_file():
        raise RecipeError(
            f"show: {path} is not there: the shard lies in no run folder; give --vq NAME and --weights FILE"
        )
    recipe = load_recipe(path)
    tier = shard.parent.name
    name, file = recipe.tokenizer(tier) if tier in recipe.tier else (recipe.pretokenize.vq, recipe.pretokenize.weights)
    return vq or name, weights or file


@export.command("llamagen")
@exit_codes()
def export_llamagen_command(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="Run folder with codes, or its URL.")],
    to: Annotated[
        Path, typer.Option(parser=local_path, metavar="DIR", help="Where to write: a folder of this machine.")
    ],
    tier: Annotated[str, typer.Option(help="Which tier's codes.")] = "pretrain",
    pictures: Annotated[bool, typer.Option(help="Write the pictures too: train_t2i reads them.")] = True,
    t5: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Make T5 features with it; else stored ones are written.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write jsonl, codes and T5 features as LlamaGen's scripts read them."""
    run = run_folder(folder)
    if not run.is_dir():
        fail(f"export: no folder {str(run)!r}; wanted a run folder with codes")
    from pipeline.llamagen.export import ExportOptions, export_llamagen
    from pipeline.training.text_features import T5Text

    text = None
    if t5:
        from tokenize_shards.text import T5Features

        text = T5Text(t5, T5Features(t5).dim, "cpu")
    done = export_llamagen(ExportOptions(run, tier, to, pictures, text))
    counts = f"{done.lines:,} lines, {done.pictures:,} pictures, {done.features:,} features in {to}"
    result(as_json, {"folder": to, **asdict(done)}, [counts])
    for line in _export_notes(done):
        note(f"note: {line}")


def _export_notes(done: "Exported") -> Iterator[str]:
    """Yield what an export had not, or has no place for."""
    if done.without_llava:
        yield f"{done.without_llava:,} lines have no captioner's text: text[1] and text[2] repeat another caption"
    if done.without_features > 0:
        yield f"{done.without_features:,} lines have no T5 features of text[0]: give --t5 FOLDER to make them"
    if done.without_text:
        yield f"{done.without_text:,} lines have no caption: an import drops them as bad_text"
    if done.crops_left:
        yield f"{done.crops_left:,} more crops stay here: the layout holds one per line"


@import_.command("llamagen")
@exit_codes()
def import_llamagen_command(
    codes: Annotated[
        Path, typer.Option(parser=local_path, metavar="DIR", help="STEM/LINE.npy folders, or ImageNet's …_codes.")
    ],
    to: Annotated[
        Path, typer.Option(parser=local_path, metavar="DIR", help="Folder of this machine that gets codes/TIER/*.tar.")
    ],
    size: Annotated[int, typer.Option(help="Side of the encoded crops, pixels.")],
    jsonl: Annotated[
        Path | None,
        typer.Option(parser=local_path, metavar="PATH", help="A jsonl file or a folder of them (text-to-image)."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(parser=local_path, metavar="DIR", help="ImageNet's …_labels (class-conditional).")
    ] = None,
    t5: Annotated[
        Path | None, typer.Option(parser=local_path, metavar="DIR", help="T5 features, STEM/LINE.npy.")
    ] = None,
    vq: Annotated[str, typer.Option(metavar="NAME", help="Tokenizer that made the codes.")] = "VQ-16",
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its weights: their fingerprint goes into every sample.")
    ] = None,
    tier: Annotated[str, typer.Option(help="Name of the tier to make.")] = "imported",
    classes: Annotated[int, typer.Option(min=1, help="Labels must be below it.")] = 1000,
    t5_text: Annotated[
        int, typer.Option(min=0, help="Which of a line's texts the features are of, from 0; t5_short: 2.")
    ] = 0,
    t5_width: Annotated[
        int | None, typer.Option(min=1, help="Width of T5 features; else what most files have.")
    ] = None,
    shard_rows: Annotated[int, typer.Option(min=1, help="Samples in a shard at most.")] = 10_000,
    shard_bytes: Annotated[int, typer.Option(min=10_000, help="Size of a shard at most, in bytes.")] = 1_000_000_000,
    as_json: JsonOption = False,
) -> None:
    """Read LlamaGen's codes into shards that the trainer reads; what cannot be used is counted by reason and named."""
    from pipeline.llamagen.ingest import ImportOptions, import_llamagen

    check_folders(codes, jsonl, labels, t5)
    fingerprint, stand_in = _maker(vq, weights)
    options = ImportOptions(
        codes=codes,
        to=to,
        vq=vq,
        fingerprint=fingerprint,
        stand_in=stand_in,
        size=size,
        jsonl=jsonl,
        labels=labels,
        features=t5,
        tier=tier,
        shard_rows=shard_rows,
        shard_bytes=shard_bytes,
        classes=classes,
        t5_text=t5_text,
        t5_width=t5_width,
    )
    done = import_llamagen(options)
    result(as_json, {"folder": options.folder, **done.record()}, done.lines())
    if not weights:
        note("note: without --weights the tokenizer's fingerprint is 'unknown': nothing can check that it made them")


def _maker(vq: str, weights: str | None) -> tuple[str, bool]:
    """Return the fingerprint of the tokenizer that made the codes, and whether it is a stand-in."""
    from tokenize_shards.samples import UNKNOWN

    if not weights:
        return UNKNOWN, False
    from tokenize_shards.vq import load_vq

    loaded = load_vq(vq, weights)
    return loaded.fingerprint, loaded.weights.stand_in


def check_folders(codes: Path, jsonl: Path | None, labels: Path | None, t5: Path | None) -> None:
    """Raise RecipeError for folders that are not there, or that name neither or both kinds of codes."""
    from pipeline.recipes.schema import RecipeError

    if (jsonl is None) == (labels is None):
        raise RecipeError(
            "import: give --jsonl PATH for text-to-image codes or --labels DIR for ImageNet's, one of the two"
        )
    if labels and t5:
        raise RecipeError("import: --t5 goes with --jsonl: ImageNet's codes have labels, not captions")
    missing = [path for path in (jsonl,) if path is not None and not path.exists()]
    missing += [path for path in (codes, labels, t5) if path is not None and not path.is_dir()]
    if missing:
        raise RecipeError(f"import: {str(missing[0])!r} is not there, or no folder")

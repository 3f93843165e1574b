"""Write a run's report: one self-contained HTML page of its funnel, its pictures and its numbers, after any stage."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from manifests.files import FormatError, read_json, write_bytes
from manifests.reasons import by_group, group_of
from pipeline.evaluation.ground_truth import alignment_auc, fault_agreement, filter_quality, group_check, mark_recall
from pipeline.report import components as page
from pipeline.report.components import chip, count, esc, image
from pipeline.report.facts import STAND_IN, STEPS, Example, Facts, gather, mosaic_shots, shrunk

REPORT = "report.html"
GROUP_NAMES = {"input": "input", "fetch": "fetch", "image": "picture", "rules": "rule", "set": "duplicates and set"}
SIGNS = {"\u2020": f"\u2020 scored with {STAND_IN}: the number means nothing.", "*": "* came with the input."}
MOSAIC_LEAST = 16
SHOWN_SCORES = 5
CARDS = 12


class ReportError(ValueError):
    """There is no run to report on; the message says where it was looked for."""


def write_report(run: Path, truth: Path | None = None) -> Path:
    """Write `RUN/report.html` from whatever the run folder holds and return its path.

    `truth`: the demo's truth table; without it, the one beside the run's own input is used where there is one.
    Raises ReportError where `run` is no run folder.
    """
    facts = gather_run(run, truth)
    path = run / REPORT
    write_bytes(path, render_report(facts, _credits(run)).encode())
    return path


def gather_run(run: Path, truth: Path | None = None) -> Facts:
    """Return the facts of a run folder, its truth table found where none is given. Raises ReportError."""
    if not (run / "manifests").is_dir() and not (run / "ledger").is_dir():
        raise ReportError(
            f"report: {str(run)!r} holds no run (no manifests/ and no ledger/ there); start one with: pipeline run"
            " --stage filter"
        )
    return gather(run, truth or _truth_beside(run))


def _truth_beside(run: Path) -> Path | None:
    """Return FOLDER/truth.parquet where the run's input is FOLDER/input/*.parquet and such a table lies there."""
    try:
        url = urlsplit(read_json(run / "manifests" / "input.json")["files"][0]["url"])
    except (OSError, FormatError, LookupError, TypeError):
        return None
    path = Path(unquote(url.path)).parent.parent / "truth.parquet"
    return path if url.scheme in ("", "file") and path.is_file() else None


def _credits(run: Path) -> str:
    try:
        return (run / "ATTRIBUTION.md").read_text(encoding="utf-8")
    except OSError:
        return ""


def render_report(facts: Facts, attribution: str = "") -> str:
    """Return the page. Parts that the run has not reached are left out."""
    parts: list[Callable[[Facts], str]] = [
        _head,
        _funnel,
        _predicted,
        _kept,
        _truth,
        _dropped,
        _groups,
        _pictures,
        _training,
        _weights,
    ]
    body = "\n".join(part(facts) for part in parts)
    credit = f"<footer>{esc(attribution.replace('# ', '', 1))}</footer>" if attribution else ""
    return page.page(f"Tessera: {facts.name}", body + credit)


def _head(facts: Facts) -> str:
    share = f"{facts.kept / facts.rows_in:.0%} of the rows" if facts.rows_in else "none yet"
    figures = [
        (facts.rows_in, "rows in", ""),
        (facts.kept, f"kept, {share}", "keep"),
        (sum(facts.dropped.values()), "dropped, each with a reason", "drop"),
        *((rows, f"in tier {name}", "") for name, rows in facts.tiers.items()),
    ]
    boxes = "".join(
        f'<div><b class="{tone}">{count(number)}</b><span>{esc(words)}</span></div>' for number, words, tone in figures
    )
    digests = "".join(
        f" {esc(stage)} <code>{esc(digest[:12])}</code>" for stage, digest in facts.digests.items() if digest
    )
    warning = (
        chip(f"some numbers come from {STAND_IN}: see the end", "warn")
        if any(one.stand_in for one in facts.weights)
        else ""
    )
    nothing = "" if facts.rows_in else '<p class="soft">The filter stage has not given its rows a fate yet.</p>'
    made = f'<p class="small soft">digests:{digests}</p>' if digests else ""
    title = (
        f'<h1>Tessera <span class="soft">{esc(facts.name)}</span></h1><p class="soft">What became of every row.'
        f" {warning}</p>"
    )
    return f'{_mosaic(facts)}{title}<div class="figures">{boxes}</div>{nothing}{made}'


def _mosaic(facts: Facts) -> str:
    shots = mosaic_shots(facts)
    columns = min(len(shots), max(12, len(shots) // 2))
    tiles = "".join(
        image(shrunk(shot.jpeg, 128), shot.text[:60]) for shot in shots[: len(shots) // max(columns, 1) * columns]
    )
    return (
        f'<div class="mosaic" style="grid-template-columns:repeat({columns},1fr)">{tiles}</div>'
        if tiles
        else '<div style="height:40px"></div>'
    )


def _funnel(facts: Facts) -> str:
    if not facts.rows_in:
        return ""
    left = facts.rows_in
    rows = page.funnel_row("rows of the table", left, 0, facts.rows_in)
    for group, lost in by_group(facts.dropped).items():
        left -= lost
        rows += page.funnel_row(STEPS[group], left, lost, facts.rows_in)
    losses = "".join(f'<p class="drop small">{esc(loss)}</p>' for loss in facts.losses)
    words = "Every row has one fate: kept, or dropped with one reason."
    return f'<h2>From rows to pairs</h2><p class="soft">{words}</p><div class="card funnel">{rows}</div>{losses}'


def _predicted(facts: Facts) -> str:
    """Show what `pipeline plan` had predicted beside what came out."""
    if not facts.predicted:
        return ""
    words = "From a sample of the input, before the run; the range is from the low to the high end of the estimate."
    rows = [[esc(cell) for cell in line] for line in facts.predicted]
    table = page.table(("rows", "predicted", "actual"), rows, frozenset((1, 2)))
    return f'<h2>Predicted and actual</h2><p class="soft">{words}</p><div class="card">{table}</div>'


def _card(shot: Example, label: str = "", survivor: bool = False) -> str:
    picture = f'<div class="pic">{image(shot.jpeg, shot.text[:80])}</div>' if shot.jpeg else ""
    words = f'<div class="words">{esc(shot.text or "(no text)")}</div>'
    recaption = f'<div class="words soft" style="margin-top:4px">{esc(shot.recaption)}</div>' if shot.recaption else ""
    scores = "".join(
        f"<span>{esc(name)}{_mark(origin)} <b>{value:.2f}</b></span>"
        for name, (value, origin) in list(shot.scores.items())[:SHOWN_SCORES]
    )
    below = f'<div class="scores">{scores}</div>' if scores else ""
    kind = " class=survivor" if survivor else ""
    return f"<figure{kind}>{picture}<figcaption>{label}{words}{recaption}{below}</figcaption></figure>"


def _mark(origin: str) -> str:
    """Return the sign that tells where a number came from: a dagger for stand-in weights, an asterisk for the input."""
    return "\u2020" if STAND_IN in origin else "*" if origin == "input" else ""


def _kept(facts: Facts) -> str:
    out, seen = "", set[str]()
    for tier, shots in facts.kept_shots.items():
        fresh = [shot for shot in shots if shot.uid not in seen][:CARDS]
        seen |= {shot.uid for shot in fresh}
        others = '<p class="small soft">Its pairs here are shown above.</p>' if not fresh else ""
        cards = "".join(_card(shot) for shot in fresh)
        out += (
            f"<h3>{chip(tier, 'keep')} {count(facts.tiers.get(tier, len(shots)))} pairs</h3>{others}<div"
            f' class="grid">{cards}</div>'
        )
    signs = {
        _mark(origin) for shots in facts.kept_shots.values() for shot in shots for _, origin in shot.scores.values()
    }
    notes = " ".join(words for sign, words in SIGNS.items() if sign in signs)
    note = f'<p class="small soft">{notes}</p>' if notes else ""
    return f"<h2>Kept</h2>{note}{out}" if out else ""


def _dropped(facts: Facts) -> str:
    """Show reasons with pictures first, then, closer together, those whose pictures never came."""
    seen, unseen = "", ""
    for reason, dropped in facts.dropped.items():
        shots = facts.dropped_shots.get(reason, [])
        with_picture = [shot for shot in shots if shot.jpeg]
        group = f'<br><span class="small soft">{GROUP_NAMES[group_of(reason)]}</span>'
        name = f'<div><b>{esc(reason)}</b> <span class="drop">{count(dropped)}</span>{group}</div>'
        if with_picture:
            seen += f'<div class="reason">{name}<div>{_thumbs(with_picture)}</div></div>'
        else:
            unseen += f'<div class="reason">{name}<div>{_lines(shots)}</div></div>'
    cards = "".join(f'<div class="card{wide}">{rows}</div>' for rows, wide in ((seen, ""), (unseen, " pairs")) if rows)
    words = "A few rows of each reason; the address alone where the picture never came or might offend."
    return f'<h2>Dropped</h2><p class="soft">{words}</p>{cards}' if cards else ""


def _thumbs(shots: Sequence[Example]) -> str:
    return f'<div class="thumbs">{"".join(_card(_bare(shot)) for shot in shots)}</div>'


def _bare(shot: Example) -> Example:
    """Return the row with a short text and no scores, for a small card."""
    return Example(shot.uid, shot.text[:70], shot.url, shot.fate, shot.reason, shot.tiers, {}, shot.jpeg)


def _lines(shots: Sequence[Example]) -> str:
    """Return addresses; their texts only where a rule or the input itself was at fault."""
    items = ""
    for shot in shots[:3]:
        words = f" <span class=soft>{esc(shot.text[:70])}</span>" if group_of(shot.reason) in ("input", "rules") else ""
        items += f"<li><code>{esc(shot.url[:110] or '(no URL)')}</code>{words}</li>"
    return f'<ul class="list">{items}</ul>'


def _groups(facts: Facts) -> str:
    groups = [group for group in facts.groups if sum(bool(shot.jpeg) for shot in group) > 1]
    if not groups:
        return ""
    out = ""
    for group in groups:
        cards = "".join(_card(_bare(shot), _fate(shot) + " ", shot.fate == "kept") for shot in group)
        out += f'<div class="thumbs">{cards}</div>'
    words = (
        "Pictures within a few bits of one another in perceptual hash; the best that passes the rules stays (framed)."
    )
    return f'<h2>Near duplicates</h2><p class="soft">{words}</p><div class="card pairs">{out}</div>'


def _fate(shot: Example) -> str:
    return chip("kept", "keep") if shot.fate == "kept" else chip(shot.reason, "drop")


def _truth(facts: Facts) -> str:
    """Compare the run with what the demo planted."""
    if not facts.truth:
        return ""
    rows = [
        [
            f"<b>{esc(one.filter)}</b>",
            *map(str, (one.planted, one.caught, one.missed, one.elsewhere, one.wrong)),
            page.meter(one.precision),
            page.meter(one.recall),
        ]
        for one in filter_quality(facts.truth)
    ]
    heads = ("filter", "planted", "caught", "missed", "elsewhere", "wrong", "precision", "recall")
    words = (
        "Faults were planted in the demo's data, known to a table that no stage reads. Planted rows that another rule"
        " dropped first are “elsewhere” and count for neither figure; “wrong” are rows that the filter dropped although"
        " nothing was planted for it."
    )
    table = page.table(heads, rows, frozenset(range(1, 6)))
    return (
        f'<h2>Against what was planted</h2><p class="soft">{words}</p><div'
        f' class="card">{table}</div>{_faults(facts)}{_details(facts)}'
    )


def _faults(facts: Facts) -> str:
    agreements = fault_agreement(facts.truth)
    right, total = sum(one.right for one in agreements), sum(one.rows for one in agreements)
    chips = " ".join(
        chip(f"{one.kind} {one.right}/{one.rows}", "keep" if one.right == one.rows else "drop") for one in agreements
    )
    return f'<h3>Faults whose reason is certain: {right} of {total} as named</h3><div class="card chips">{chips}</div>'


def _details(facts: Facts) -> str:
    marks = " ".join(
        chip(
            f"{'tiled' if tiled else 'centred'}, opacity {alpha}/255: {caught} of {of}",
            "keep" if caught == of else "drop",
        )
        for alpha, tiled, caught, of in mark_recall(facts.truth)
    )
    out = f'<h3>Stock marks found, by strength</h3><div class="card chips">{marks}</div>' if marks else ""
    groups = [group for group in group_check(facts.truth) if group.kept + group.near_duplicate]
    lines = (
        [f"planted groups of duplicates with one survivor: {sum(group.kept == 1 for group in groups)} of {len(groups)}"]
        if groups
        else []
    )
    for column in ("similarity", "conse"):
        found = alignment_auc(facts.truth, column)
        if found:
            lines.append(
                f"{column}: a picture's own words beat swapped ones in {found[0]:.0%} of pairs ({found[1]} pictures"
                f" against {found[2]})"
            )
    return out + "".join(f"<p>{esc(line)}</p>" for line in lines)


def _pictures(facts: Facts) -> str:
    out = "".join(f"<h3>{esc(name)}</h3>{image(data, name, 'wide')}" for name, data in facts.pictures)
    recalls = "".join(
        f"<p>{esc(tier)}: of {entry['pictures']} training captions, {entry['top1']:.0%} gave back a sample nearest to"
        f" their own picture (chance {entry['chance_top1']:.1%}). {esc(entry.get('says', ''))}</p>"
        for tier, entry in facts.memorised.items()
        if {"pictures", "top1", "chance_top1"} <= entry.keys()
    )
    return f"<h2>Codes and samples</h2>{recalls}{out}" if out or recalls else ""


def _training(facts: Facts) -> str:
    out = "".join(
        f'<h3>{esc(tier)}</h3><div class="card">{page.curve(points)}</div>'
        for tier, points in facts.curves.items()
        if len(points) > 1
    )
    return f"<h2>Training</h2>{out}" if out else ""


def _weights(facts: Facts) -> str:
    if not facts.weights:
        return ""
    rows = [
        [
            esc(one.name) + (" " + chip(STAND_IN, "warn") if one.stand_in else ""),
            f"<code>{esc(one.sha256[:16])}…</code>",
        ]
        for one in facts.weights
    ]
    words = (
        "Stand-in weights are seeded random numbers in the real format, loaded by the real code: what they say means"
        " nothing."
    )
    note = f'<p class="soft">{words}</p>' if any(one.stand_in for one in facts.weights) else ""
    return f'<h2>Weights used</h2>{note}<div class="card">{page.table(("name", "sha256"), rows)}</div>'


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of a run folder, and with --png the picture of its top."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.report.render", description=main.__doc__)
    parser.add_argument("run", type=Path, help="run folder, such as demo/run")
    parser.add_argument("--truth", type=Path, help="truth table of the demo; found by itself beside the run's input")
    parser.add_argument("--png", type=Path, help="also draw the report's top as a picture (docs/report.png is made so)")
    options = parser.parse_args(arguments)
    try:
        print(f"report: {write_report(options.run, options.truth)}")
        if options.png:
            from pipeline.report.poster import draw_poster  # matplotlib is an extra

            print(f"picture: {draw_poster(gather_run(options.run, options.truth), options.png)}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

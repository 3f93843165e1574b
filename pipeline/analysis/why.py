"""Tell one row's story from the run folder: source, values with their origins, every rule's verdict, fate."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from filters.tombstones import Wanted
from filters.url_forms import ENCODED, PLAIN, place_forms
from filters.verdicts import evaluate
from manifests.aside import ASIDE, PAIRS
from manifests.files import FormatError, read_table
from manifests.journal import Journal, records_of
from manifests.plans import planned_tables
from manifests.query import connect, files_sql
from manifests.reasons import WITHOUT_ROW
from manifests.tombstones import read_tombstones
from pipeline.execution.redact_aside import files_aside
from pipeline.execution.step import Runtime
from pipeline.inputs.beside import NOT_IN_TABLE
from pipeline.recipes.rules import build_rules
from pipeline.recipes.schema import Recipe, RecipeError
from pipeline.steps.captions import captions_of_before
from pipeline.steps.select import BATCH_ROWS, row_again

JUDGES = ("select", "decide")
"""Steps whose settings are the rules, a user's own files included."""


FILES = 256
"""Tables that are asked at once: DuckDB holds some 0.2 MB of each until it is done with all of them."""
WORDS, ESCAPE = re.compile("[A-Za-z0-9]+"), re.compile("%[0-9A-Fa-f]{2}")


class NotFound(LookupError):
    """No row of the run has this uid or URL."""


def stories(recipe: Recipe, asked: str) -> list[tuple[dict[str, Any], list[str]]]:
    """Return every final row with this uid (32 hex digits, or the first 8 or more) or URL, and the lines of its story.
    Raises NotFound, or RecipeError where filter has not run."""
    return [(row, list(story(recipe, row))) for row in find_rows(recipe.root, asked)]


def other_rules(recipe: Recipe) -> list[str]:
    """Return a note where the run was judged by other rules than the recipe's, else nothing."""
    from pipeline.execution.step import settings_changed
    from pipeline.stages.registry import stage_steps

    changed = [
        step.name for step in stage_steps(recipe, "filter", Runtime()) if step.name in JUDGES and settings_changed(step)
    ]
    ran = " and ".join(changed)
    return [
        f"these are not the rules that {ran} ran with here: fates are the run's, verdicts those of the rules now"
    ] * bool(changed)


def find_rows(root: Path, asked: str) -> list[dict[str, Any]]:
    """Return the final rows with this uid, or this URL in whatever spelling, in input order. Raises NotFound or
    RecipeError."""
    finals = _finals(root)
    if not finals:
        raise RecipeError(f"why: filter has not run in {root}; first: pipeline run --stage filter")
    is_uid = 8 <= len(asked) <= 32 and all(digit in "0123456789abcdefABCDEF" for digit in asked)
    where, given, tables = (
        ("uid BETWEEN unhex(?) AND unhex(?)", [asked.ljust(32, "0"), asked.ljust(32, "f")], finals)
        if is_uid
        else ("url IN (SELECT unnest(?))", *_spelt(root, finals, asked))
    )
    rows = _ask(root, f"SELECT * FROM {{}} WHERE {where} ORDER BY filename, file_row_number", tables, given)
    if not rows:
        if is_removed(root, asked):
            raise NotFound(
                f"why: {asked!r} was removed from {root}: its rows say `removed`, without their URL, and are found by"
                " uid alone"
            )
        what = "uid" if is_uid else "URL"
        if count := _aside(root, asked, is_uid):
            raise NotFound(
                f"why: no row of the plan of {root} has the {what} {asked!r} now, but what was fetched of {count} uids"
                f" with it lies in {ASIDE}/fetch: a limit, a list or a rule took them out of the plan, and a run whose"
                f" plan has them takes them back; pipeline prune {root} shows what lies aside"
            )
        wanted = "give 32 hex digits, the first 8 or more of them, or a URL of the input"
        raise NotFound(f"why: no row of {root} has the {what} {asked!r}; {wanted}")
    uids = sorted({row["uid"].hex() for row in rows})
    if is_uid and len(uids) > 1:
        raise NotFound(f"why: {len(uids)} uids begin with {asked!r}: {', '.join(uids[:5])}; give more digits")
    return rows


def _aside(root: Path, asked: str, is_uid: bool) -> int:
    """Return how many uids that were set aside begin with these digits, or have this URL in whatever spelling. Damaged
    tables are passed over: verify names them."""
    form, uids = place_forms(pa.array([asked], pa.string())).now[0], set[str]()
    for path in files_aside(root, PAIRS):
        with contextlib.suppress(OSError, FormatError):
            table = read_table(path, ["key", "url"]).combine_chunks()
            forms = place_forms(pa.array(table["url"].to_pylist(), pa.string())).now
            mine = pc.starts_with(table["key"], asked.lower()) if is_uid else pc.equal(forms, form)
            uids.update(table["key"].filter(pc.fill_null(mine, False)).to_pylist())
    return len(uids)


def _finals(root: Path) -> list[Path]:
    return [root / file.path for record in records_of(root, "decide") for file in record.files]


def _ask(root: Path, query: str, tables: Sequence[Path], given: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the rows of a query over tables of one kind, `{}` in it, asked of some files after the others: what DuckDB
    holds of a file does not add up over all of them."""
    found: list[dict[str, Any]] = []
    with connect(root) as connection:
        for start in range(0, len(tables), FILES):
            some = files_sql(tables[start : start + FILES])
            found += connection.execute(query.format(some), list(given)).to_arrow_table().to_pylist()
    return found


def spellings(root: Path, tables: Sequence[Path], url: str) -> list[str]:
    """Return the URLs of these tables, as written, whose form is that of a URL. Plain ones are compared as text."""
    ((found,), _) = _spelt(root, tables, url)
    return sorted(found)


def _spelt(root: Path, tables: Sequence[Path], url: str) -> tuple[list[list[str]], list[Path]]:
    """Return ([the URLs of these tables whose form is that of a URL], the tables that hold one), in one pass.

    Parsed are only URLs that hold the longest word of the form's path, which each spelling has as it stands unless it
    has a percent sign or a blank that counts for nothing.
    """
    form = place_forms(pa.array([url], pa.string())).now[0]
    word = _word(str(form))
    query = f"""
        SELECT url, file_index FROM {{}}
        WHERE (contains(url, ?) OR contains(url, '%')
               OR contains(url, chr(9)) OR contains(url, chr(10)) OR contains(url, chr(13)))
        AND (url IN (?, ?) OR NOT regexp_matches(url, ?) OR contains(url, '{ENCODED}'))"""
    urls, places = set[str](), set[Path]()
    with connect(root) as connection:
        given = [word, f"http://{form}", f"https://{form}", PLAIN]
        for start in range(0, len(tables), FILES):
            some = tables[start : start + FILES]
            for batch in connection.execute(query.format(files_sql(some)), given).to_arrow_reader(BATCH_ROWS):
                same = pc.equal(place_forms(batch.column(0)).now, form)
                urls.update(batch.column(0).filter(same).to_pylist())
                places.update(some[place] for place in batch.column(1).filter(same).unique().to_pylist())
    return [sorted(urls)], [table for table in tables if table in places]


def _word(form: str) -> str:
    """Return the longest run of ASCII letters and digits behind the host of a form, "" where there is none."""
    path = form.partition("/")[2] if "/" in form else ""
    return max(WORDS.findall(ESCAPE.sub("/", path)), key=len, default="")


def is_removed(root: Path, url: str) -> bool:
    """Tell whether a tombstone names this URL, or its host or a domain above it."""
    return Wanted(read_tombstones(root)).urls(pa.array([url])) > 0


def story(recipe: Recipe, row: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of one final row's story."""
    yield f"{row['uid'].hex() if row['uid'] else '-'}  {row['url']}"
    yield f"  from      {row['source']} row {row['source_row']}"
    yield f"  fate      {row['fate']}" + (
        f": {row['reason']}"
        if row["reason"]
        else f", tiers {', '.join(row['tiers'])}, pictures in pairs/{row['shard']}.tar"
    )
    for name in [name[: -len("_origin")] for name in row if name.endswith("_origin")]:
        if row[name] is not None:
            value = f"{row[name]:.4g}" if isinstance(row[name], float) else row[name]
            yield f"  {name:<15} {value}  ({row[f'{name}_origin']})"
    if row.get("mark"):
        yield f"  mark      {row['mark']}{_detail(recipe.root, row)}"
    if row.get("step") == "select" and row["reason"] not in (*WITHOUT_ROW, NOT_IN_TABLE):
        yield from _at_select(recipe, row)
    if row["shard"]:
        yield from _fetched(recipe.root, row)
        yield from _verdicts(recipe, row)
        yield from _family(recipe.root, row)
        yield from _sidecars(recipe.root, row)


def _detail(root: Path, row: dict[str, Any]) -> str:
    """Return what the dedup step noted beside a row's mark: which list, tombstone, hash or item."""
    path = root / "ledger" / "marks.parquet"
    if not path.exists():
        return ""
    with connect(root) as connection:
        query = f"SELECT detail FROM {files_sql([path])} WHERE uid = ? AND reason = ? ORDER BY detail LIMIT 1"
        found = connection.execute(query, [row["uid"], row["mark"]]).fetchone()
    return f": {found[0]}" if found else ""


def _verdicts(recipe: Recipe, row: dict[str, Any]) -> Iterator[str]:
    """Ask every rule again; the texts are in the planned rows."""
    plan = recipe.root / "manifests" / "plan" / "fetch" / f"{row['shard']}.parquet"
    with connect(recipe.root) as connection:
        texts = connection.execute(
            f"SELECT text, top_caption FROM {files_sql([plan])} WHERE uid = ?", [row["uid"]]
        ).fetchone()
    said = dict(zip(("text", "top_caption"), texts or (None, None), strict=True))
    yield from _rule_lines(recipe, {**{name: value for name, value in row.items() if name != "tiers"}, **said})


def _at_select(recipe: Recipe, row: dict[str, Any]) -> Iterator[str]:
    """Read a row that select dropped once more: the ledger keeps who it was, the input what it held."""
    try:
        values = row_again(recipe, row["source"], row["source_row"])
    except (LookupError, OSError, FormatError) as error:
        yield f"  input     cannot be read again: {error}"
        return
    for name, value in values.items():
        if value is not None and name not in ("url", "uid"):
            yield f"  {name:<15} {_short(value)}  (input, read again)"
    yield from _rule_lines(recipe, values)


def _rule_lines(recipe: Recipe, values: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each rule of [filter] and of every tier: its thresholds, its verdict, and the values that it
    looked at."""
    rules = build_rules(recipe)
    batch = pa.RecordBatch.from_pylist([{**dict.fromkeys(rules.columns), **values}])
    for place, some in (("filter", rules.everywhere), *rules.tiers.items()):
        for rule in some:
            (passes,), (null,) = evaluate(rule, _typed(batch, rule.inputs))
            says = "missing value" if null else "passes" if passes else "fails"
            seen = ", ".join(f"{name} = {_short(batch[name][0].as_py())}" for name in rule.inputs)
            yield f"  rule      {place}: {rule.name} {thresholds(rule)}: {says} ({seen})"


def _short(value: Any) -> str:
    return (
        "null"
        if value is None
        else f"{value:.4g}"
        if isinstance(value, float)
        else repr(value)
        if isinstance(value, str)
        else str(value)
    )


def _fetched(root: Path, row: dict[str, Any]) -> Iterator[str]:
    """Tell every attempt to fetch the row, and what its picture is."""
    record = Journal(root, "fetch").get(row["shard"])
    ledgers = [root / file.path for file in record.files if file.path.startswith("ledger/")] if record else []
    attempts = _ask(root, "SELECT * FROM {} WHERE uid = ? ORDER BY attempt", ledgers, [row["uid"]])
    for attempt in attempts:
        facts = [
            f"{name} {attempt[name]}" for name in ("http_status", "rule", "value") if attempt.get(name) is not None
        ]
        yield f"  fetch     attempt {attempt['attempt']}: {attempt['reason'] or 'a picture came'}" + (
            f" ({', '.join(facts)})" if facts else ""
        )


def thresholds(rule: Any) -> str:
    """Return a rule's thresholds as the recipe writes them."""
    found = []
    for field in fields(rule):
        value = getattr(rule, field.name)
        if field.name == "name" or value is None:
            continue
        found.append(f"{field.name} = {{{thresholds(value)}}}" if is_dataclass(value) else f"{field.name} = {value!r}")
    return ", ".join(found)


def _typed(batch: pa.RecordBatch, columns: tuple[str, ...]) -> pa.RecordBatch:
    from manifests.schema import COLUMNS

    return pa.RecordBatch.from_arrays([batch[name].cast(COLUMNS[name].type) for name in columns], names=list(columns))


def _family(root: Path, row: dict[str, Any]) -> Iterator[str]:
    if not row.get("cluster"):
        return
    query = """
        SELECT lower(hex(uid)) AS uid, url, reason FROM {}
        WHERE cluster = ? AND uid <> ? AND reason IS DISTINCT FROM 'exact_duplicate'"""
    family = _ask(root, query, _finals(root), [row["cluster"], row["uid"]])
    family.sort(key=lambda twin: (twin["reason"] is not None, twin["reason"] or "", twin["uid"]))
    yield from (f"  twin      {twin['uid']} {twin['url']}: {twin['reason'] or 'survives'}" for twin in family[:8])
    if len(family) > 8:
        yield f"  twins     and {len(family) - 8} more"
    yield (
        "  of twins  the best that passes the rules survives: tier, then aesthetic score, then pixels, then the"
        " smaller uid"
    )


def _of_shard(root: Path, step: str, shard: str) -> list[Path]:
    """Return the tables of a step that hold rows of a shard of pairs."""
    records = records_of(root, step)
    return [root / record.files[0].path for record in records if record.shard.rpartition("-")[2] == shard]


def _captions_of_shard(root: Path, shard: str) -> list[Path]:
    """Return the tables of captions that count; of a run of before there was a judge those that were written then."""
    records = records_of(root, "judge") or captions_of_before(root)
    return [root / record.files[0].path for record in records if record.shard.rpartition("-")[2] == shard]


def caption_lines(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a captioner said of a picture, each attempt with its prompt and flags, and what became of it."""
    for number, one in enumerate(row.get("attempts") or (), 1):
        seed = f", seed {one['seed']}" if one["seed"] else ""
        flags = f"  [{', '.join(one['flags'])}]" if one["flags"] else ""
        said = one["reason"] or repr(one["text"])
        yield f"  caption   {row['name']}: attempt {number} (prompt {one['prompt']}{seed}): {said}{flags}"
    if row["reason"] is not None:
        yield f"  caption   {row['name']}: none: {row['reason']}"
        return
    if "origin" not in row:  # written before there was a judge
        flags = f"  [{', '.join(row['flags'])}]" if row["flags"] else ""
        yield f"  caption   {row['name']}: {row['caption']}{flags}"
        return
    model = f", by {row['model']}" if row["model"] else ""
    yield f"  caption   {row['name']}: {row['action']}: {row['origin']}{model}: {row['caption']}"


def _sidecars(root: Path, row: dict[str, Any]) -> Iterator[str]:
    """Tell captions and codes of the row: sidecars of its shard of pairs, called KIND-SHARD, and its packed samples."""
    query = "SELECT parse_filename(filename, true) AS name, * FROM {} WHERE uid = ? ORDER BY filename"
    for found in _ask(root, query, _captions_of_shard(root, row["shard"]), [row["uid"]]):
        yield from caption_lines(found)
    columns = ("size", "crop", "n_crops")
    for found in _ask(root, query, _of_shard(root, "encode", row["shard"]), [row["uid"]]):
        if found["reason"] is None:
            yield f"  encode    {found['name']}: " + ", ".join(f"{name} {found[name]}" for name in columns)
    tables = planned_tables(root, "pack")
    if tables and records_of(root, "pack"):
        query = "SELECT parse_filename(filename, true) AS name FROM {} WHERE uid = ? ORDER BY 1"
        for found in _ask(root, query, tables, [row["uid"]]):
            tier, _, number = found["name"].rpartition("-")
            yield f"  codes     codes/{tier}/{number}.tar: {row['uid'].hex()}.codes.npy"

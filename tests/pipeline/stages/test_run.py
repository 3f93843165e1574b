"""pipeline/stages/run.py: what is checked before a stage works, what runs, what is told, and what comes of it."""

import fcntl

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.journal import Journal
from manifests.manifest import Manifest
from manifests.weights import WeightsError
from pipeline.execution.errors import RunFailed
from pipeline.execution.run_folder import recipe_of_run
from pipeline.execution.step import Runtime, note_step
from pipeline.recipes.schema import RecipeError
from pipeline.stages import run as stages_run
from pipeline.stages.registry import STAGES
from pipeline.stages.run import StageOptions, check_ahead, run_stage
from tests.support.journals import lose, spread
from tests.support.stage_steps import Doubles, Numbers, recipe_at

RULE = {"use": "size", "min_side": 1, "name": "too_odd"}


class Counted(Doubles):
    """Doubles again, as the only step of a stage: its rows are the stage's."""

    name = "counted"
    counts_rows = True


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Let filter be the two steps of tests/support, and caption the second alone; return the run folder, not yet
    made."""
    monkeypatch.setitem(STAGES, "filter", (Numbers, Doubles))
    monkeypatch.setitem(STAGES, "caption", (Counted,))
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"URL": ["http://a.test/1.jpg"]}), tmp_path / "in" / "a.parquet")
    return tmp_path / "run"


def recipe(root, **input_values):
    read = recipe_at(root, **input_values)
    return read.model_copy(update={"filter": read.filter.model_copy(update={"rules": [RULE]})})


def numbers(root, step):
    return [pq.read_table(path)["n"].to_pylist() for path in sorted((root / step).glob("*.parquet"))]


def test_a_stage_runs_its_steps_in_order_and_writes_its_manifest(place, capsys):
    finished = run_stage(recipe(place), "filter", StageOptions())
    assert (finished.made, finished.before) == (4, 0)
    assert numbers(place, "numbers") == [[0, 1], [3, 4]]
    assert numbers(place, "doubles") == [[0, 2], [6, 8]]
    assert Manifest.read(place / "manifests" / "filter.json") == finished.manifest
    assert (finished.manifest.rows_in, finished.manifest.kept) == (6, 4)
    assert recipe_of_run(place).input.files == f"{place.parent}/in/*.parquet"
    told = capsys.readouterr().err
    assert "note of numbers\nnote of doubles\nfilter: numbers, doubles\n" in told
    assert "warning: the input lacks HEIGHT, TEXT, WIDTH" in told


def test_a_second_run_makes_nothing(place, capsys):
    first = run_stage(recipe(place), "filter", StageOptions())
    capsys.readouterr()
    again = run_stage(recipe(place), "filter", StageOptions())
    assert (again.made, again.before) == (0, 4)
    assert again.manifest.digest == first.manifest.digest
    assert "filter: numbers, doubles (nothing changed; unfinished shards run)" in capsys.readouterr().err


def test_what_is_unfinished_runs(place):
    run_stage(recipe(place), "filter", StageOptions())
    lose(place, "doubles", "00001")
    again = run_stage(recipe(place), "filter", StageOptions())
    assert (again.made, again.before) == (1, 3)


def test_a_changed_setting_runs_its_step_and_what_follows(place, capsys):
    run_stage(recipe(place), "filter", StageOptions())
    capsys.readouterr()
    later = run_stage(recipe(place, limit=5), "filter", StageOptions())
    assert (later.made, later.before) == (2, 2)  # the numbers stay
    told = capsys.readouterr().err
    assert "filter: doubles changed (limit); runs again: doubles, where their input changes" in told
    first = run_stage(recipe(place, limit=5, seed=10), "filter", StageOptions())
    assert (first.made, numbers(place, "doubles")) == (4, [[20, 22], [26, 28]])
    assert "numbers changed (seed); runs again: numbers, doubles" in capsys.readouterr().err


def table(place, step):
    return Journal(place, step).tables[0]


def test_the_records_of_its_steps_are_gathered_when_they_end(place, monkeypatch):
    run_stage(recipe(place), "filter", StageOptions())
    journal = place / "manifests" / "journal"
    assert sorted(path.relative_to(journal).as_posix() for path in journal.rglob("*.*")) == [
        *("doubles.copy.parquet", "doubles.parquet", "doubles/step.json"),
        *("numbers.copy.parquet", "numbers.parquet", "numbers/step.json"),
    ]
    before = {step: table(place, step).read_bytes() for step in ("numbers", "doubles")}
    spread(place)  # as before
    lose(place, "numbers", "00001")
    run_stage(recipe(place), "filter", StageOptions())
    assert {step: table(place, step).read_bytes() for step in before} == before


def test_a_damaged_table_of_records_is_told_and_written_again(place, capsys):
    run_stage(recipe(place), "filter", StageOptions())
    path = table(place, "numbers")
    before = path.read_bytes()
    path.write_bytes(before[:-9])
    again = run_stage(recipe(place), "filter", StageOptions())
    assert (again.made, path.read_bytes()) == (0, before)
    assert f"numbers: {path}: not a Parquet table" in (told := capsys.readouterr().err)
    assert ": written again from its copy" in told


@pytest.mark.parametrize("paid", [False, True])
def test_records_that_are_lost_twice_are_made_anew_only_where_that_costs_little(place, capsys, monkeypatch, paid):
    run_stage(recipe(place), "filter", StageOptions())
    monkeypatch.setattr(Numbers, "carries", paid)
    for path in Journal(place, "numbers").tables:
        path.write_bytes(b"?")
    capsys.readouterr()
    if paid:
        with pytest.raises(
            RecipeError, match=f"numbers: the records .* are damaged .*; first: pipeline repair {place}"
        ):
            run_stage(recipe(place), "filter", StageOptions())
    else:
        assert run_stage(recipe(place), "filter", StageOptions()).made == 2
        assert "warning: numbers: the records of its shards are damaged: they are made anew" in capsys.readouterr().err


def test_records_that_were_deleted_are_made_anew_with_a_warning(place, capsys):
    run_stage(recipe(place), "filter", StageOptions())
    for path in Journal(place, "numbers").tables:
        path.unlink()
    capsys.readouterr()
    run_stage(recipe(place), "filter", StageOptions())
    assert "warning: numbers: it ended here before, and no record of its shards is left" in capsys.readouterr().err


def test_a_step_that_had_nothing_to_do_has_lost_no_records(place, capsys):
    run_stage(recipe(place), "filter", StageOptions())
    step = Numbers(recipe(place), place)
    for path in Journal(place, "numbers").tables:
        path.unlink()
    note_step(step, empty=True)
    capsys.readouterr()
    run_stage(recipe(place), "filter", StageOptions())
    assert "no record of its shards" not in capsys.readouterr().err
    assert "empty" not in (step.journal.note() or {})


def test_shards_that_the_plan_holds_no_more_are_dropped(place):
    run_stage(recipe(place), "filter", StageOptions())
    record = spread(place) / "manifests" / "journal" / "numbers" / "00001.json"
    stray = record.with_name("00009.json")
    stray.write_bytes(record.read_bytes())
    run_stage(recipe(place), "filter", StageOptions())
    assert not stray.exists()


def test_a_dry_run_says_what_would_run_and_writes_nothing(place, capsys):
    assert run_stage(recipe(place), "filter", StageOptions(dry_run=True)) is None
    assert "filter: numbers, doubles" in capsys.readouterr().err
    assert list(place.rglob("*")) == []


def test_a_part_of_a_stage_writes_no_manifest(place, capsys):
    assert run_stage(recipe(place), "filter", StageOptions(steps=("numbers",))) is None
    assert (
        "filter: ran numbers alone; the manifest is written when all of its steps have run" in capsys.readouterr().err
    )
    assert (numbers(place, "numbers"), numbers(place, "doubles")) == ([[0, 1], [3, 4]], [])
    assert not (place / "manifests" / "filter.json").exists()
    assert run_stage(recipe(place), "filter", StageOptions()).made == 2


def test_a_step_needs_the_steps_before_it(place):
    only = StageOptions(steps=("doubles",))
    with pytest.raises(RecipeError, match=r"--step doubles: numbers has not run in .*: --step numbers,doubles"):
        run_stage(recipe(place), "filter", only)
    run_stage(recipe(place), "filter", StageOptions())
    with pytest.raises(RecipeError, match=r"--step doubles: numbers is changed \(seed\) in "):
        run_stage(recipe(place, seed=3), "filter", only)
    lose(place, "numbers", "00001")
    with pytest.raises(RecipeError, match="--step doubles: 1 of 2 shards of numbers are not done; choose it too"):
        run_stage(recipe(place), "filter", only)


def test_an_unknown_step_is_refused_with_the_choices(place):
    with pytest.raises(RecipeError, match="--step 'doublets': no such step in this stage; choices: numbers, doubles"):
        run_stage(recipe(place), "filter", StageOptions(steps=("numbers", "doublets")))
    assert not place.exists()


def test_a_stage_needs_the_stage_before_it(place, capsys):
    with pytest.raises(RecipeError, match=r"caption: filter has not run in .*; first: pipeline run --stage filter"):
        run_stage(recipe(place), "caption", StageOptions())
    run_stage(recipe(place), "filter", StageOptions())
    assert run_stage(recipe(place), "caption", StageOptions()).manifest.stage == "caption"
    capsys.readouterr()
    run_stage(recipe(place, seed=1), "caption", StageOptions())
    assert "note: filter ran here with other settings of numbers than this recipe's; caption takes what it left" in (
        capsys.readouterr().err
    )
    (place / "manifests" / "filter.json").write_text("{")
    with pytest.raises(
        RecipeError, match=r"caption: cannot trust .*filter\.json .*; first: pipeline run --stage filter"
    ):
        run_stage(recipe(place), "caption", StageOptions())


def test_a_folder_that_another_run_holds_is_refused(place):
    place.mkdir()
    with open(place / ".lock", "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RecipeError, match="held by another run"):
            run_stage(recipe(place), "filter", StageOptions())


def test_weights_that_do_not_fit_stop_the_run_before_any_work(place, monkeypatch):
    def refuse(step):
        """Find fault with the weights."""
        raise WeightsError(f"weights of {step.name} do not fit")

    monkeypatch.setattr(Doubles, "check", refuse)
    with pytest.raises(WeightsError, match="weights of doubles do not fit"):
        run_stage(recipe(place), "filter", StageOptions())
    assert numbers(place, "numbers") == []
    with pytest.raises(WeightsError, match="weights of counted do not fit"):
        check_ahead(recipe(place), ["caption", "filter"])


def test_weights_of_a_step_that_has_ended_are_not_looked_into(place, monkeypatch):
    run_stage(recipe(place), "filter", StageOptions())
    monkeypatch.setattr(Doubles, "check", lambda step: pytest.fail("it has ended with these weights"))
    check_ahead(recipe(place), ["filter"])


def test_reasons_are_asked_again_in_filter_alone(place, capsys):
    run_stage(recipe(place), "filter", StageOptions(retry=("timeout",)))
    assert "retry: no row failed with timeout: nothing is asked again" in capsys.readouterr().err
    run_stage(recipe(place), "caption", StageOptions(retry=("timeout",)), Runtime())
    assert "retry:" not in capsys.readouterr().err


def test_input_that_cannot_be_read_or_lacks_columns_is_told(place, capsys):
    (place.parent / "in" / "b.parquet").write_bytes(b"PAR1 no table PAR1")
    pq.write_table(pa.table({"URL": ["u"], "TEXT": ["t"]}), place.parent / "in" / "c.parquet")
    run_stage(recipe(place), "filter", StageOptions(dry_run=True))
    told = capsys.readouterr().err
    assert "warning: some files lack TEXT (1 of 2 files): null there" in told
    assert "warning: b.parquet: not a readable Parquet file: " in told
    assert "; it is counted as a loss\n" in told


def test_a_lost_file_is_named_by_the_summary_alone(place, capsys):
    """It stood in a warning and in the summary. A stage that ends without a summary names it itself."""
    (place.parent / "in" / "b.parquet").write_bytes(b"PAR1 no table PAR1")
    run_stage(recipe(place), "filter", StageOptions())
    told = capsys.readouterr().err
    assert "warning: 1 of 2 input files cannot be read; the summary names them" in told
    assert "b.parquet" not in told
    run_stage(recipe(place), "filter", StageOptions(steps=("numbers",)))
    assert capsys.readouterr().err.count("b.parquet") == 1


def test_tables_in_text_are_read_once_and_hidden_files_are_told(place, capsys):
    (place.parent / "in" / "a.parquet").rename(place.parent / "in" / "._a.parquet")
    (place.parent / "in" / "b.csv").write_text("URL,WIDTH\nhttp://a.test/1.jpg,7\n")
    read = recipe(place)
    read = read.model_copy(update={"input": read.input.model_copy(update={"files": f"{place.parent}/in"})})
    for count in (1, 0):
        run_stage(read, "filter", StageOptions())
        told = capsys.readouterr().err
        assert "input: 1 hidden files and folders are passed over (their names begin with . or _), such as /" in told
        assert told.count("input: 1 tables in text are read into manifests/input/, once\n") == count
        assert "warning: the input lacks HEIGHT, TEXT" in told


def test_a_column_whose_type_cannot_be_read_is_told_with_it(place, capsys):
    table = pa.table({"URL": ["u"], "TEXT": [{"a": 1}], "WIDTH": [True]})
    for name in "bc":
        pq.write_table(table, place.parent / "in" / f"{name}.parquet")
    run_stage(recipe(place), "filter", StageOptions())
    told = capsys.readouterr().err
    says = "no value can be read of column TEXT (struct<a: int64>): null there"
    assert f"warning: b.parquet and 1 more files: {says}" in told
    assert "warning: b.parquet and 1 more files: no value can be read of column WIDTH (bool): null there" in told


def test_nobody_is_asked_for_a_picture_without_a_contact(place, monkeypatch):
    monkeypatch.setattr(Doubles, "name", "fetch")
    nameless = recipe(place)
    nameless = nameless.model_copy(update={"fetch": nameless.fetch.model_copy(update={"user_agent": "tessera"})})
    with pytest.raises(RecipeError, match=r"fetch\.user_agent: got 'tessera', wanted a name and a contact"):
        run_stage(nameless, "filter", StageOptions())
    assert not place.exists()
    assert run_stage(nameless, "filter", StageOptions(steps=("numbers",))) is None


class Orphan:
    """A worker of an earlier run, of another recipe, that nobody ended: it writes a shard of `numbers` at a moment."""

    def __init__(self, place, times):
        self.step, self.times = Numbers(recipe(place, seed=50), place), times

    def writes(self):
        if self.times:
            self.times -= 1
            unit = self.step.units()[1]
            self.step.journal.record(self.step.run(unit, None))


@pytest.mark.parametrize("when", ["among the units", "after its step"])
def test_shards_of_another_run_come_into_no_manifest(place, tmp_path, monkeypatch, when):
    """Score with other heads was stopped on a cluster and went on: 6 of 24 shards of the next manifest were its."""
    (tmp_path / "fresh").mkdir()
    wanted = run_stage(recipe(tmp_path / "fresh" / "run", files=f"{tmp_path}/in/*.parquet"), "filter", StageOptions())
    orphan, do_units = Orphan(place, 1), stages_run.do_units

    def meanwhile(step, pending, options, progress):
        do_units(step, pending, options, progress)
        if step.name == ("numbers" if when == "among the units" else "doubles"):
            orphan.writes()

    monkeypatch.setattr(stages_run, "do_units", meanwhile)
    if when == "after its step":
        with pytest.raises(RunFailed, match=r"numbers: the records of 1 shards \(00001\) are not of this run"):
            run_stage(recipe(place), "filter", StageOptions())
        assert not (place / "manifests" / "filter.json").exists()
    finished = run_stage(recipe(place), "filter", StageOptions())
    assert numbers(place, "numbers") == [[0, 1], [3, 4]]
    assert finished.manifest.digest == wanted.manifest.digest

"""Data sets: which files are theirs, and columns that mean what ours do."""

import pytest

from manifests.schema import COLUMNS
from pipeline.recipes.checks import OF_INPUT
from pipeline.recipes.datasets import DATASETS


def test_endings_of_files():
    endings = {name: DATASETS[name].endings for name in ("laion-coco", "jsonl", "img2dataset")}
    assert endings == {"laion-coco": (".parquet",), "jsonl": (".jsonl",), "img2dataset": (".parquet", ".tar")}


def test_text_is_read_where_a_folder_has_nothing_else():
    more = {name: DATASETS[name].text_endings for name in ("columns", "jsonl", "img2dataset")}
    assert {".csv", ".tsv", ".txt", ".json", ".csv.gz", ".txt.zst"} < {*more["columns"]}
    assert len(more["columns"]) == 7 * 5 + 2  # formats, each plain and packed in four ways; .parq and .pq
    assert (more["jsonl"], more["img2dataset"]) == ((".jsonl.gz", ".jsonl.bz2", ".jsonl.zst", ".jsonl.xz"), ())


def test_pictures_lie_beside_two_of_them():
    assert [name for name, dataset in DATASETS.items() if dataset.local] == ["img2dataset", "jsonl"]


@pytest.mark.parametrize("name", DATASETS)
def test_every_column_is_one_of_ours_and_may_come_from_an_input(name):
    columns = DATASETS[name].columns
    assert set(columns) <= set(COLUMNS)
    assert set(columns) <= set(OF_INPUT)
    assert len(set(columns.values())) == len(columns)


def test_scores_on_another_scale_are_not_taken_for_laions():
    assert {"pwatermark", "punsafe", "similarity_l14"}.isdisjoint(DATASETS["coyo"].columns)
    assert DATASETS["coyo"].columns["similarity"] == "clip_similarity_vitb32"
    assert DATASETS["datacomp"].columns["similarity"] == "clip_b32_similarity_score"


def test_own_columns_map_nothing_by_themselves():
    assert DATASETS["columns"].columns == {}

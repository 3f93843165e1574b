"""Tables [score.NAME]: defaults, which options change the scores, and what is said of a faulty one."""

import pytest
from pydantic import ValidationError

from filters.scorers.options import (
    AestheticV1Options,
    AestheticV2Options,
    ClipNsfwOptions,
    ClipOptions,
    ScorerError,
    StockMarkOptions,
    WatermarkOptions,
    read_options,
)


def test_an_empty_table_is_the_published_setting():
    assert read_options(ClipOptions, "clip", {}) == ClipOptions(
        model="ViT-L-14-quickgelu", pretrained="openai", weights="open_clip_model.safetensors"
    )
    assert StockMarkOptions().side == 512


def test_where_weights_lie_is_no_part_of_the_identity():
    one, two = ClipOptions(weights="/a/clip.pt"), ClipOptions(weights="/b/clip.pt")
    assert one.identity() == two.identity() == {"model": "ViT-L-14-quickgelu", "pretrained": "openai"}
    assert ClipOptions(model="ViT-B-32").identity()["model"] == "ViT-B-32"
    assert StockMarkOptions(side=640).identity() == {"side": 640}
    for heads in (AestheticV1Options, AestheticV2Options, ClipNsfwOptions, WatermarkOptions):
        assert heads(weights="x.pt").identity() == {}  # the file's digest counts instead


def test_a_stand_in_has_no_architecture_of_the_recipe():
    assert ClipOptions(model="ViT-B-32", weights="stand-in").identity() == {}


def test_bounds_are_kept_when_equal():
    assert [read_options(StockMarkOptions, "stock_mark", {"side": side}).side for side in (64, 4096)] == [64, 4096]
    for side in (63, 4097):
        with pytest.raises(ScorerError, match=rf"score.stock_mark: side: .* \(got {side}\); known keys: side: pixels"):
            read_options(StockMarkOptions, "stock_mark", {"side": side})


@pytest.mark.parametrize("side", ["512", 512.0, True, None])
def test_values_are_not_bent_into_shape(side):
    with pytest.raises(ScorerError, match=r"score.stock_mark: side: "):
        read_options(StockMarkOptions, "stock_mark", {"side": side})


def test_an_unknown_key_lists_the_known_ones():
    with pytest.raises(
        ScorerError, match=r"score.x: unknown key 'weight'; known keys: model: open_clip's .* weights: "
    ):
        read_options(ClipOptions, "x", {"weight": "y"})


def test_options_do_not_change():
    with pytest.raises(ValidationError):
        StockMarkOptions().side = 100

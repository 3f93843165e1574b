"""Words that a stock agency's mark leaves in read text, whole and damaged, and words that are none."""

import pytest

from filters.scorers.stock_words import errors, is_stock_mark

MARKS = (
    "shutterstock|SHUTTERSTOCK.COM|shutterst0ck|hutterstoc|tterstock|shutter|123RF|Alamy|dreamstlme|depositphot|©"
    " iStock|gettyimages|Adobe Stock|SAMPLE|sample only|preview|deposiphoios"
)
ORDINARY = (
    "|Stockholm|silk stockings|the dream house|deposit|photograph of a lady|samples|Coca-Cola|EXIT|a malamy|sultan"
)


@pytest.mark.parametrize("text", MARKS.split("|"))
def test_marks(text):
    assert is_stock_mark(text)


@pytest.mark.parametrize("text", ORDINARY.split("|"))
def test_no_marks(text):
    assert not is_stock_mark(text)


def test_errors_counts_the_letters_that_differ():
    assert errors("stock", "xxstockxx") == 0
    assert errors("stock", "stok") == 1
    assert errors("stock", "xxstackxx") == 1
    assert errors("stock", "") == 5

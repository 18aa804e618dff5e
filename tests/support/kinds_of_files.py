"""Image files made for the table in docs/own_data.md: the rows on orientation, animation, damage and size."""

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from kinds_of_colour import NOISE, SEA, SKIN
from made_images import SIDE, Cases, chunk, lossless, plain, png, profile_chunk, saved
from made_profiles import SRGB, rgb_profile, srgb_of_rgb
from PIL import Image

QUARTERS = np.kron([[0, 80], [160, 240]], np.ones((8, 8))).astype(np.uint8)


def turned() -> Cases:
    """Files for each EXIF orientation. In orientation 6, the first row is the right side, the first column the top."""
    stored = {
        1: QUARTERS,
        2: QUARTERS[:, ::-1],
        3: QUARTERS[::-1, ::-1],
        4: QUARTERS[::-1],
        5: QUARTERS.T,
        6: QUARTERS[:, ::-1].T,
        7: QUARTERS[::-1, ::-1].T,
        8: QUARTERS[::-1].T,
    }
    made = []
    for orientation, levels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(np.ascontiguousarray(levels))
        made += [
            saved(image.convert("RGB"), kind, exif=exif, **lossless(kind)) for kind in ("PNG", "JPEG", "WEBP", "TIFF")
        ]
        made.append(saved(image, "TIFF", exif=exif, compression="tiff_lzw"))
    return [(content, QUARTERS) for content in made]


def with_damaged_exif() -> Cases:
    far = Image.Exif()
    far[0x0112] = 3
    moved = bytearray(far.tobytes())
    moved[10:14] = struct.pack("<I", 10**9)  # the directory is outside the file
    pieces = [b"Exif\0\0no exif", b"Exif\0\0II*\0", bytes(moved), b"Exif\0\0" + b"\xff" * 60]
    image = Image.fromarray(QUARTERS).convert("RGB")
    return [
        (saved(image, kind, exif=exif, **lossless(kind)), QUARTERS)
        for exif in pieces
        for kind in ("PNG", "JPEG", "WEBP")
    ]


def damaged_last_page(tiff: bytes) -> bytes:
    """The TIFF file with an unknown compression in its last page only."""
    known, unknown = struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, 9)
    place = tiff.rindex(known)
    return tiff[:place] + unknown + tiff[place + len(unknown) :]


def several() -> Cases:
    first, others = Image.new("RGB", (SIDE, SIDE), SKIN), [Image.new("RGB", (SIDE, SIDE), SEA)] * 2
    pages = {"save_all": True, "append_images": others}
    three = saved(first, "TIFF", **pages)
    return [
        (saved(first, "PNG", **pages), SKIN),
        (saved(first, "WEBP", **pages, lossless=True), SKIN),
        (three, SKIN),
        (saved(first, "TIFF", **pages, compression="tiff_lzw"), SKIN),
        (damaged_last_page(three), SKIN),
    ]


def with_odd_chunks() -> Cases:
    row, zeros = bytes(SKIN) * SIDE, zlib.compress(bytes(3 << 20))
    large = [
        chunk(b"zTXt", b"a\0\0" + zeros),
        chunk(b"iTXt", b"a\0\1\0\0\0" + zeros),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 70,  # each chunk is allowed, but not their sum
        chunk(b"zTXt", b"a\0\0" + zeros) + chunk(b"tEXt", b"a\0" + bytes(17 << 20)),
    ]
    damaged = [
        chunk(b"tEXt", b"a\0b", damaged=True),
        chunk(b"tIME", b"1234567", damaged=True),
        chunk(b"cHRM", b"short"),
        chunk(b"zTXt", b"a\0\1unknown packing"),
        chunk(b"fcTL", b"short"),
    ]
    profile = rgb_profile(SRGB, 1.0)
    long_profile = profile_chunk(struct.pack(">I", 2 << 20) + profile[4:] + bytes((2 << 20) - len(profile)))
    exif = Image.Exif()
    exif[0x0112] = 3
    upside_down = saved(Image.fromarray(QUARTERS[::-1, ::-1].copy()), exif=exif)
    end = upside_down.index(b"IDAT") - 4
    return [
        *((png(8, 2, row, text), SKIN) for text in (*large, *damaged)),
        *((png(8, 2, row, after=[text]), SKIN) for text in large),
        (png(8, 2, row, long_profile), srgb_of_rgb(SKIN, SRGB, 1.0)),
        (png(8, 2, row, large[0], profile_chunk(profile)), srgb_of_rgb(SKIN, SRGB, 1.0)),
        (upside_down[:end] + large[0] + upside_down[end:], QUARTERS),
        (png(8, 2, row, chunk(b"tRNS", struct.pack(">3H", *SKIN), damaged=True)), "."),
        (png(8, 2, row, large[0], chunk(b"gAMA", b"1")), "."),
    ]


def thin() -> Cases:
    column = np.zeros((10_001, 1), np.uint8)
    column[4900:5100] = 77
    return [(saved(Image.fromarray(column)), 77), (saved(Image.fromarray(np.ascontiguousarray(column.T))), 77)]


def of_size(width: int, height: int) -> bytes:
    """A PNG file whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return png(8, 0, b"").replace(
        chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)), chunk(b"IHDR", header)
    )


def with_no_picture() -> Cases:
    whole = {
        kind: saved(Image.fromarray(NOISE).resize((64, 64)), kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
    }
    packed = saved(Image.fromarray(NOISE).resize((64, 64)), "TIFF", compression="tiff_lzw")
    flipped = bytearray(whole["PNG"])
    flipped[flipped.index(b"IDAT") + 60] ^= 8
    gif = saved(Image.fromarray(NOISE), "GIF")
    return [
        *((content[: len(content) // 2], ".") for content in (*whole.values(), packed)),
        *((content[:20], ".") for content in whole.values()),
        *(
            (content, ".")
            for content in (
                b"",
                b"some text",
                bytes(flipped),
                of_size(0, 0),
                of_size(0, 4),
                gif,
                png(8, 3, bytes(SIDE)),
            )
        ),
    ]


FILE_KINDS: Mapping[str, Cases] = {
    "EXIF orientation, 1 to 8 (JPEG, PNG, WebP, TIFF)": turned(),
    "damaged EXIF": with_damaged_exif(),
    "animation (PNG, WebP) or several pages (TIFF)": several(),
    "PNG with large or damaged texts": with_odd_chunks(),
    "very thin image": thin(),
    "name that ends for another format": [  # all these files have the same name
        (plain("RGB", SKIN, kind, **lossless(kind)), SKIN) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
    ],
    "more than 89 million pixels": [
        (of_size(*size), words)
        for size, words in (
            ((10_000, 9000), "90,000,000 pixels"),
            ((60_000, 60_000), "3,600,000,000 pixels.*reduce it"),
        )
    ],
    "cut off, damaged pixels, no pixels, no image": with_no_picture(),
}

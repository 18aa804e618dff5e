"""Image files made for the table in docs/own_data.md: the rows on colours, depth and transparency."""

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from made_images import (
    SIDE,
    Cases,
    blended,
    chunk,
    lossless,
    plain,
    png,
    png16,
    profile_chunk,
    saved,
    tiff,
    without_adobe_marker,
    ycck,
)
from made_profiles import (
    ADOBE_RGB,
    DISPLAY_P3,
    PROPHOTO,
    SRGB,
    grey_profile,
    ink_profile,
    rgb_profile,
    srgb_of_lab,
    srgb_of_rgb,
)
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import OPEN_INFO

SKIN, SEA = (200, 60, 40), (10, 120, 200)
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
INKS = {(0, 0, 0, 0): (100, 0, 0), (1, 0, 0, 0): (55, -30, -40), (0, 0, 0, 1): (12, 0, 0), (0, 1, 1, 0): (45, 60, 40)}


def with_rgb_profiles() -> Cases:
    made = [(SRGB, 1.0), (ADOBE_RGB, 563 / 256), (DISPLAY_P3, 2.2), (PROPHOTO, 1.8)]
    return [
        (plain("RGB", colour, kind, icc_profile=rgb_profile(*how), **lossless(kind)), srgb_of_rgb(colour, *how))
        for how in made
        for kind in ("PNG", "JPEG", "WEBP", "TIFF")
        for colour in (SKIN, SEA)
    ]


def with_grey_profiles() -> Cases:
    eight = [
        (plain("L", 60, kind, icc_profile=grey_profile(gamma)), srgb_of_rgb((60, 60, 60), SRGB, gamma))
        for gamma in (1.0, 2.2, 1.8)
        for kind in ("PNG", "JPEG", "TIFF")
    ]
    dark = png(16, 0, struct.pack(">4H", *[100] * 4), profile_chunk(grey_profile(1.0)))  # between levels 0 and 1 of 255
    opaque = png(16, 4, struct.pack(">2H", 60 * 257, 65535) * SIDE, profile_chunk(grey_profile(1.0)))
    return [*eight, (dark, 5), (opaque, srgb_of_rgb((60, 60, 60), SRGB, 1.0))]


def with_unusable_profiles() -> Cases:
    whole = rgb_profile(SRGB, 1.0)
    packed = zlib.compress(whole)
    return [
        *((plain("RGB", SKIN, icc_profile=damaged), SKIN) for damaged in (b"no profile", whole[:200], bytes(500))),
        (plain("RGB", SKIN, "JPEG", icc_profile=whole).replace(b"ICC_PROFILE\0\1\1", b"ICC_PROFILE\0\1\2"), SKIN),
        (plain("RGB", SKIN, icc_profile=grey_profile(1.0)), SKIN),
        (plain("RGB", SKIN, icc_profile=ink_profile(INKS, (50, 0, 0))), SKIN),
        (plain("L", 60, icc_profile=ink_profile(INKS, (50, 0, 0))), 60),
        (plain("CMYK", (0, 255, 255, 0), "TIFF", icc_profile=whole), (255, 0, 0)),
        (png(8, 2, bytes(SKIN) * SIDE, chunk(b"iCCP", b"name\0\0" + packed[:50])), SKIN),
        (png(8, 2, bytes(SKIN) * SIDE, chunk(b"iCCP", b"name\0\1" + packed)), SKIN),
        (png(8, 2, bytes(SKIN) * SIDE, chunk(b"iCCP", b"name")), SKIN),
    ]


def with_gammas() -> Cases:
    def gamma(value: float) -> bytes:
        return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))

    row = bytes(SKIN) * SIDE
    return [
        (png(8, 2, row, gamma(1.0)), srgb_of_rgb(SKIN, SRGB, 1.0)),
        (png(8, 2, row, gamma(1 / 1.8)), srgb_of_rgb(SKIN, SRGB, 1.8)),
        (png(8, 0, bytes([60]) * SIDE, gamma(1.0)), srgb_of_rgb((60, 60, 60), SRGB, 1.0)),
        (png16(0, 60 * 257).replace(chunk(b"IEND", b""), b"") + chunk(b"IEND", b""), 60),
        (png(16, 0, struct.pack(">4H", *[60 * 257] * 4), gamma(1.0)), srgb_of_rgb((60, 60, 60), SRGB, 1.0)),
        (png(8, 3, bytes(SIDE), gamma(1.0), chunk(b"PLTE", bytes(SKIN))), srgb_of_rgb(SKIN, SRGB, 1.0)),
        (png(8, 2, row, gamma(0.45455)), SKIN),
        (png(8, 2, row, gamma(0)), SKIN),
        (png(8, 2, row, gamma(1.0), chunk(b"sRGB", b"\0")), SKIN),
        (png(8, 2, row, gamma(1.0), profile_chunk(rgb_profile(DISPLAY_P3, 2.2))), srgb_of_rgb(SKIN, DISPLAY_P3, 2.2)),
    ]


def with_transparent_colours() -> Cases:
    def key(*levels: int) -> bytes:
        return chunk(b"tRNS", struct.pack(f">{len(levels)}H", *levels))

    grey16, rgb16 = struct.pack(">H", 25_701) * SIDE, struct.pack(">3H", 25_701, 9, 9) * SIDE
    return [
        (png(1, 0, b"\x00", key(0)), 255),
        (png(1, 0, b"\x00", key(1)), 0),
        (png(2, 0, b"\x55", key(1)), 255),
        (png(2, 0, b"\x55", key(2)), 85),
        (png(4, 0, b"\x55\x55", key(5)), 255),
        (png(4, 0, b"\x55\x55", key(85)), 85),
        (png(8, 0, bytes([60]) * SIDE, key(60)), 255),
        (png(8, 0, bytes([60]) * SIDE, key(61)), 60),
        (png(16, 0, grey16, key(25_701)), 255),
        (png(16, 0, grey16, key(25_700)), 100),
        (png(8, 2, bytes(SKIN) * SIDE, key(*SKIN)), 255),
        (png(8, 2, bytes(SKIN) * SIDE, key(*SEA)), SKIN),
        (png(16, 2, rgb16, key(25_701, 9, 9)), 255),
        (png(16, 2, rgb16, key(9, 25_701, 9)), (100, 0, 0)),
        (png(8, 2, bytes(SKIN) * SIDE, profile_chunk(rgb_profile(SRGB, 1.0)), key(*SKIN)), 255),
    ]


def with_opacity() -> Cases:
    half, linear = (*SKIN, 128), rgb_profile(SRGB, 1.0)
    on_white, converted = blended(SKIN, 128 / 255), blended(srgb_of_rgb(SKIN, SRGB, 1.0), 128 / 255)
    deep = [level * 257 for level in half]
    return [
        *((plain("RGBA", half, kind, **lossless(kind)), on_white) for kind in ("PNG", "WEBP", "TIFF")),
        *((plain("RGBA", half, kind, icc_profile=linear, **lossless(kind)), converted) for kind in ("PNG", "WEBP")),
        *((plain("RGBA", (*SKIN, clear), "PNG"), colour) for clear, colour in ((0, [255] * 3), (255, SKIN))),
        *((plain("LA", (60, 128), kind), blended((60,), 128 / 255) * 3) for kind in ("PNG", "TIFF")),
        (plain("LA", (60, 0)), 255),
        (png16(6, *deep), on_white),
        (png16(4, 60 * 257, 128 * 257), blended((60,), 128 / 255) * 3),
        (tiff(2, [16] * 4, struct.pack("<4H", *deep) * 16, t338=[2]), on_white),
        (
            tiff(3, [8, 8], bytes([0, 128]) * 16, t338=[2], t320=[level * 256 for level in SKIN for _ in range(256)]),
            on_white,
        ),
    ]


GREY_TIMES_OPACITY = [(tiff(1, [8, 8], bytes([30, 128]) * 16, t338=[1]), blended((59,), 128 / 255) * 3)]
PILLOW_READS_IT = (b"II", 1, (1,), 1, (8, 8), (1,)) in OPEN_INFO  # Pillow 11 does not
FLOATS, UNKNOWN_TIFF = {"t339": [3]}, "damaged, or of a kind that is not read"
COLOUR_KINDS: Mapping[str, Cases] = {
    "ordinary photo or drawing, or one with an sRGB profile": [
        *((saved(Image.fromarray(NOISE), kind, **lossless(kind)), NOISE) for kind in ("PNG", "BMP", "TIFF", "WEBP")),
        (saved(Image.fromarray(NOISE), icc_profile=SRGB_PROFILE), NOISE),
        (saved(Image.fromarray(NOISE[..., 0].copy()), icc_profile=SRGB_PROFILE), NOISE[..., 0]),
        (saved(Image.fromarray(NOISE), "TIFF", icc_profile=SRGB_PROFILE), NOISE),
    ],
    "RGB colour profile (Adobe RGB, Display P3, ProPhoto, linear, …)": with_rgb_profiles(),
    "grey colour profile": with_grey_profiles(),
    "grey image with an RGB colour profile": [
        (plain("L", 60, icc_profile=rgb_profile(SRGB, 1.0)), srgb_of_rgb((60, 60, 60), SRGB, 1.0)),
        (plain("I;16", 60 * 257, icc_profile=rgb_profile(SRGB, 1.0)), srgb_of_rgb((60, 60, 60), SRGB, 1.0)),
    ],
    "colour profile that is damaged, or for another kind of pixels": with_unusable_profiles(),
    "PNG with a gamma (`gAMA`), without a profile or `sRGB` chunk": with_gammas(),
    "CMYK with a colour profile (JPEG, TIFF)": [
        (
            plain(
                "CMYK", [255 * ink for ink in inks], kind, icc_profile=ink_profile(INKS, (50, 0, 0)), **lossless(kind)
            ),
            srgb_of_lab(*lab),
        )
        for inks, lab in INKS.items()
        for kind in ("JPEG", "TIFF")
    ],
    "CMYK without a colour profile (JPEG, TIFF)": [
        *((plain("CMYK", (255, 0, 0, 0), kind, **lossless(kind)), (0, 255, 255)) for kind in ("JPEG", "TIFF")),
        (plain("CMYK", (0, 51, 102, 51), "JPEG", quality=100), (204, 163, 122)),
        (without_adobe_marker(plain("CMYK", (0, 51, 102, 51), "JPEG", quality=100)), (204, 163, 122)),
        (tiff(5, [16] * 4, struct.pack("<4H", 0, 51 * 257, 102 * 257, 51 * 257) * 16), (204, 163, 122)),
    ],
    # Y, Cb, Cr of the inverted inks: red, green and blue are 158.8, 121.9 and 78.4 of ink's cyan, magenta and yellow
    "YCCK JPEG": [(ycck(128, 100, 150, 200), [(255 - ink) * 200 / 255 for ink in (158.8, 121.9, 78.4)])],
    "Lab TIFF": [
        (tiff(8, [8] * 3, struct.pack("Bbb", 128, a, b) * 16), srgb_of_lab(128 / 2.55, a, b))
        for a, b in ((0, 0), (20, -20), (-30, 25))
    ],
    "palette": [
        (png(8, 3, bytes(SIDE), chunk(b"PLTE", bytes(SKIN))), SKIN),
        (png(2, 3, b"\x55", chunk(b"PLTE", bytes(SEA + SKIN))), SKIN),
        (saved(Image.new("RGB", (SIDE, SIDE), SKIN).convert("P", palette=Image.Palette.ADAPTIVE), "BMP"), SKIN),
        (tiff(3, [8], bytes(16), t320=[level * 256 for level in SKIN for _ in range(256)]), SKIN),
    ],
    "1, 2 or 4 bits": [
        (png(1, 0, b"\xff"), 255),
        (png(2, 0, b"\x55"), 85),
        (png(4, 0, b"\x55\x55"), 85),
        (plain("1", 1, "BMP"), 255),
        (plain("1", 1, "TIFF", compression="group4"), 255),
        (tiff(1, [4], b"\x55\x55" * SIDE), 85),
    ],
    "12-bit or 16-bit grey (PNG, TIFF)": [
        (png16(0, 70 * 257), 70),
        (png16(0, 70 * 257 + 129), 71),
        (png16(0, 65535), 255),
        (tiff(1, [16], struct.pack("<H", 70 * 257) * 16), 70),
        (tiff(1, [16], struct.pack(">H", 70 * 257) * 16, ">"), 70),
        (plain("I;16", 70 * 257, "TIFF", compression="tiff_lzw"), 70),
        (tiff(1, [12], b"\xff\xff\xff" * 8), 255),
        (tiff(1, [12], b"\x46\x44\x64" * 8), 70),
    ],
    "16-bit colour (PNG, TIFF)": [
        (png16(2, *(level * 257 for level in SKIN)), SKIN),
        (tiff(2, [16] * 3, struct.pack("<3H", *(level * 257 for level in SKIN)) * 16), SKIN),
        (tiff(2, [16] * 3, struct.pack(">3H", *(level * 257 for level in SKIN)) * 16, ">"), SKIN),
    ],
    "grey in floating point (TIFF)": [
        (tiff(1, [32], struct.pack("<f", 0.4) * 16, **FLOATS), 102),
        (tiff(1, [32], struct.pack(">f", 0.4) * 16, ">", **FLOATS), 102),
        (tiff(0, [32], struct.pack("<f", 0.4) * 16, **FLOATS), 153),
        *((tiff(1, [32], struct.pack("<f", odd) * 16, **FLOATS), "from 0") for odd in (1.5, -1, float("nan"))),
        (tiff(2, [32] * 3, struct.pack("<f", 0.4) * 48, **FLOATS), UNKNOWN_TIFF),
    ],
    "32-bit or signed whole numbers (TIFF)": [
        (tiff(1, [32], struct.pack("<I", 7) * 16), "white is not known"),
        (tiff(1, [32], struct.pack("<i", 7) * 16, t339=[2]), "white is not known"),
        (tiff(1, [16], struct.pack("<h", 7) * 16, t339=[2]), "white is not known"),
    ],
    "TIFF that Pillow would misread": [
        (tiff(2, [16] * 3, struct.pack("<H", 12_817) * 48, t284=[2]), "separate planes"),
        (tiff(1, [32], zlib.compress(struct.pack(">f", 0.4) * 16), ">", t259=[8], **FLOATS), "big-endian"),
        (tiff(6, [8] * 3, bytes(48)), "subsampled|truncated"),
    ],
    "TIFF where 0 is white": [
        (tiff(0, [1], b"\x00" * SIDE), 255),
        (tiff(0, [8], bytes([185]) * 16), 70),
        (tiff(0, [16], struct.pack("<H", 185 * 257) * 16), 70),
    ],
    "opacity channel (PNG, WebP, TIFF; 8 or 16 bits)": with_opacity(),
    "colours multiplied by their opacity (TIFF)": [
        *(GREY_TIMES_OPACITY if PILLOW_READS_IT else []),
        (tiff(2, [8] * 4, bytes([100, 30, 20, 128]) * 16, t338=[1]), blended((199, 60, 40), 128 / 255)),
        (
            tiff(2, [16] * 4, struct.pack("<4H", 25_700, 7710, 5140, 32_896) * 16, t338=[1]),
            blended((199, 60, 40), 128 / 255),
        ),
    ],
    "one transparent colour (PNG, every depth)": with_transparent_colours(),
    "palette with transparent colours": [
        (png(8, 3, bytes(SIDE), chunk(b"PLTE", bytes(SKIN)), chunk(b"tRNS", b"\0")), 255),
        (png(8, 3, bytes(SIDE), chunk(b"PLTE", bytes(SKIN)), chunk(b"tRNS", b"\x80")), blended(SKIN, 128 / 255)),
        (png(8, 3, bytes(SIDE), chunk(b"PLTE", bytes(SKIN + SEA)), chunk(b"tRNS", b"\xff\0")), SKIN),
    ],
}

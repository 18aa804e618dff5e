"""Small colour profiles (ICC, version 2), and the sRGB levels that colours in these profiles must become."""

import struct

import numpy as np

Rows = tuple[tuple[float, float, float], ...]

# X, Y and Z of full red, green and blue under D50.
SRGB: Rows = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))
ADOBE_RGB: Rows = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
DISPLAY_P3: Rows = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
PROPHOTO: Rows = ((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491))
_D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(primaries: Rows, gamma: float) -> bytes:
    """The profile of a display with three equal curves."""
    tags = {b"wtpt": _xyz(_D50)}
    for name, row in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags |= {name + b"XYZ": _xyz(row), name + b"TRC": _curve(gamma)}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"wtpt": _xyz(_D50), b"kTRC": _curve(gamma)})


def ink_profile(papers: dict[tuple[int, int, int, int], tuple[int, int, int]], other: tuple[int, int, int]) -> bytes:
    """A CMYK profile: the Lab colour for combinations of full (1) or empty (0) inks; `other` for all others."""
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    lab = [papers.get(inks, other) for inks in corners]
    table = bytes(n for light, a, b in lab for n in (round(light * 2.55), a + 128, b + 128))
    straight = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + 4 * straight + table + 3 * straight
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"wtpt": _xyz(_D50), b"A2B0": lut})


def srgb_of_rgb(levels: tuple[int, int, int], primaries: Rows, gamma: float) -> list[int]:
    """The sRGB levels of 8-bit levels whose meaning is given by `gamma` and `primaries`."""
    return _srgb_of_xyz((np.array(levels) / 255) ** gamma @ np.array(primaries))


def srgb_of_lab(light: float, a: float, b: float) -> list[int]:
    """The sRGB levels of a CIELab colour under D50."""
    y = (light + 16) / 116
    ratios = [t**3 if t > 6 / 29 else 3 * (6 / 29) ** 2 * (t - 4 / 29) for t in (y + a / 500, y, y - b / 200)]
    return _srgb_of_xyz(np.array(ratios) * _D50)


def _srgb_of_xyz(xyz: np.ndarray) -> list[int]:
    light = (xyz @ np.linalg.inv(np.array(SRGB))).clip(0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return [round(255 * float(level)) for level in encoded]


def _curve(gamma: float) -> bytes:
    return b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + bytes(2)


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    offset = 132 + 12 * len(tags)
    index, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        index += name + struct.pack(">II", offset + len(body), len(content))
        body += padded
    head = struct.pack(">I4sI", offset + len(body), bytes(4), 0x02400000) + kind + space + connection
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(value * 65536) for value in _D50))
    return head + bytes(128 - len(head)) + index + body

"""PNG files whose side chunks Pillow refuses: large texts, damaged texts and dates, large colour profiles."""

import io
import struct
import zlib
from typing import IO, Any

from PIL import PngImagePlugin

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"tRNS", b"gAMA")  # side chunks that change the picture: their damage is the picture's
_PROFILE = b"iCCP"
_LONGEST = 16 << 20  # bytes of a side chunk, and of an unpacked profile


def without_refused_chunks(file: IO[bytes]) -> tuple[io.BytesIO, dict[str, Any]]:
    """The file again without the side chunks that Pillow refuses; with what `Image.info` must then hold.

    Texts are not unpacked further than Pillow allows, so that they cannot fill the memory. Damaged pixels stay damaged.

    Raises:
        struct.error, SyntaxError: the file breaks off, or is no sequence of chunks.
    """
    kept, info = io.BytesIO(SIGNATURE), dict[str, Any]()
    kept.seek(0, io.SEEK_END)
    reader = PngImagePlugin.PngStream(file)
    judge = PngImagePlugin.PngStream(io.BytesIO())  # keeps what Pillow would: the sum of the texts, the last frame
    file.seek(len(SIGNATURE))
    kind = b""
    while kind != b"IEND":
        kind, _, length = reader.read()
        if _is_side(kind) and length > _LONGEST:
            file.seek(length + 4, io.SEEK_CUR)
            continue
        content, checksum = file.read(length), file.read(4)
        if kind == _PROFILE:
            info["icc_profile"] = _profile(content)
        elif not _is_side(kind) or _is_accepted(judge, kind, content, checksum):
            kept.write(struct.pack(">I", length) + kind + content + checksum)
    kept.seek(0)
    return kept, info


def _is_side(kind: bytes) -> bool:
    return kind[:1].islower() and kind not in _PIXEL_CHUNKS


def _is_accepted(judge: PngImagePlugin.PngStream, kind: bytes, content: bytes, checksum: bytes) -> bool:
    if struct.pack(">I", zlib.crc32(kind + content)) != checksum:
        return False
    judge.fp = io.BytesIO(content)
    try:
        judge.call(kind, 0, len(content))
    except (AttributeError, EOFError):  # a kind that Pillow skips; a frame of an animation
        return True
    except (ValueError, SyntaxError, IndexError, struct.error, zlib.error):
        return False
    return True


def _profile(content: bytes) -> bytes | None:
    """The unpacked colour profile of an iCCP chunk; None where it is damaged."""
    _, _, packed = content.partition(b"\0")
    if packed[:1] != b"\0":  # the number of the only way to pack
        return None
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(packed[1:], _LONGEST)
    except zlib.error:
        return None
    return profile if unpacking.eof else None

"""Block strings as typed stages, and the width of each resolution.

The notation is that of the published code (Child 2020, `hps.py`), with commas between the pieces:

| form  | in the encoder                                  | in the decoder                                     |
|-------|-------------------------------------------------|----------------------------------------------------|
| `RxN` | N residual blocks at resolution R               | N blocks at resolution R                           |
| `RdK` | a residual block at R, then average pooling by K | refused                                           |
| `RmS` | refused                                         | a block at R that first adds the upsampled S state |
| `R`   | one block at R                                  | one block at R                                     |
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from vdvae_lr.errors import InputError

_PIECE = re.compile(r"^(?P<resolution>[1-9]\d{0,4})(?:(?P<kind>[xdm])(?P<number>[1-9]\d{0,4}))?$")
_WIDTH = re.compile(r"^(?P<resolution>[1-9]\d{0,4}):(?P<channels>[1-9]\d{0,4})$")
_MOST_BLOCKS = 1_000  # settings may come from strangers, and each block takes milliseconds; published ones have 91


@dataclass(frozen=True)
class EncoderStage:
    """One bottom-up block: its resolution, and the factor of the average pooling after it (1: no pooling)."""

    resolution: int
    pool: int = 1

    @property
    def output_resolution(self) -> int:
        """Resolution of the feature that this block returns."""
        return self.resolution // self.pool


@dataclass(frozen=True)
class DecoderStage:
    """One top-down block and its latent group: its resolution, and the resolution whose state it adds first."""

    resolution: int
    upsample_from: int | None = None


def _pieces(text: str, setting: str, allowed: str) -> list[tuple[int, str, int]]:
    """Split a block string into (resolution, kind, number); a plain resolution counts as `x1`."""
    pieces = []
    for piece in text.split(","):
        match = _PIECE.match(piece.strip())
        kind = (match["kind"] or "x") if match else ""
        if match is None or kind not in allowed:
            forms = " or ".join({"x": "32x11", "d": "32d2", "m": "32m16"}[letter] for letter in allowed)
            raise InputError(
                f"{setting}: '{piece.strip()}' is not a block; write pieces like {forms}, separated by commas."
            )
        pieces.append((int(match["resolution"]), kind, int(match["number"] or 1)))
    blocks = sum(number if kind == "x" else 1 for _, kind, number in pieces)
    if blocks > _MOST_BLOCKS:
        raise InputError(f"{setting} asks for {blocks} blocks; at most {_MOST_BLOCKS} are allowed.")
    return pieces


def parse_encoder(text: str, image_size: int) -> tuple[EncoderStage, ...]:
    """Stages of `enc_blocks`, which start at the image's resolution and follow their own pooling.

    Raises:
        InputError: a piece is not an encoder block, or the stages before it do not lead to its resolution.
    """
    stages: list[EncoderStage] = []
    resolution = image_size
    for piece_resolution, kind, number in _pieces(text, "enc_blocks", "xd"):
        if piece_resolution != resolution:
            cause = f"image_size is {image_size}" if not stages else f"the blocks before it lead to {resolution}"
            raise InputError(
                f"enc_blocks: a block at resolution {piece_resolution} does not fit, since {cause}; "
                "change the block string or image_size."
            )
        if kind == "x":
            stages += [EncoderStage(resolution)] * number
            continue
        if resolution % number:
            raise InputError(f"enc_blocks: '{resolution}d{number}' does not divide; pool by a divisor of {resolution}.")
        stages.append(EncoderStage(resolution, number))
        resolution //= number
    return tuple(stages)


def parse_decoder(text: str, image_size: int, encoder: tuple[EncoderStage, ...]) -> tuple[DecoderStage, ...]:
    """Stages of `dec_blocks`, which must fit the image and the encoder's features.

    Raises:
        InputError: a piece is not a decoder block, its resolution has no encoder feature, it upsamples a state that
            does not exist yet or by no whole factor, or the last block is not at the image's resolution.
    """
    stages: list[DecoderStage] = []
    features = {image_size} | {stage.output_resolution for stage in encoder}
    for resolution, kind, number in _pieces(text, "dec_blocks", "xm"):
        if resolution not in features:
            raise InputError(
                f"dec_blocks: resolution {resolution} has no encoder feature; enc_blocks reaches {sorted(features)}."
            )
        if kind == "x":
            stages += [DecoderStage(resolution)] * number
            continue
        if number not in {stage.resolution for stage in stages} or number >= resolution or resolution % number:
            raise InputError(
                f"dec_blocks: '{resolution}m{number}' needs an earlier block at a divisor of {resolution}; "
                "start from the coarsest resolution and work up."
            )
        stages.append(DecoderStage(resolution, number))
    if stages[-1].resolution != image_size:
        raise InputError(
            f"dec_blocks: the last block is at resolution {stages[-1].resolution}, but image_size is {image_size}; "
            "they must agree."
        )
    return tuple(stages)


def parse_widths(text: str, width: int, encoder: tuple[EncoderStage, ...]) -> dict[int, int]:
    """Channels at each resolution: `width`, or those of `custom_width_str` (`"512:32,256:64"`).

    Features are zero-padded on their way to lower resolutions, so widths may only grow there. The image's resolution
    has `width`.

    Raises:
        InputError: the string is broken, enc_blocks lacks a resolution, a lower resolution is narrower, or the image's
            resolution has another width.
    """
    custom: dict[int, int] = {}
    for piece in filter(None, (part.strip() for part in text.split(","))):
        match = _WIDTH.match(piece)
        if match is None:
            raise InputError(
                f"custom_width_str: '{piece}' is not a width; write RESOLUTION:CHANNELS pairs like 64:512,32:512."
            )
        custom[int(match["resolution"])] = int(match["channels"])
    image_size = encoder[0].resolution
    resolutions = sorted({image_size} | {stage.output_resolution for stage in encoder}, reverse=True)
    unknown = next((resolution for resolution in custom if resolution not in resolutions), None)
    if unknown is not None:
        raise InputError(f"custom_width_str: enc_blocks has no resolution {unknown}; it reaches {sorted(resolutions)}.")
    widths = {resolution: custom.get(resolution, width) for resolution in resolutions}
    if widths[image_size] != width:
        raise InputError(
            f"custom_width_str: resolution {image_size} is the image's and has width {width}; set --width to "
            f"{widths[image_size]} or leave {image_size} out."
        )
    for higher, lower in pairwise(resolutions):
        if widths[lower] < widths[higher]:
            raise InputError(
                f"custom_width_str: width {widths[lower]} at resolution {lower} is below {widths[higher]} at {higher}; "
                "widths may only grow towards lower resolutions."
            )
    return widths

"""What a data set holds: told to a person, logged, and compared when a run goes on."""

import hashlib
from collections.abc import Mapping
from typing import Any

from vdvae_lr.datasets.sources import Splits
from vdvae_lr.errors import printable

PARTS = ("train", "valid", "test")
_ENDINGS_SHOWN, _REASONS_SHOWN = 5, 12

Inventory = Mapping[str, Mapping[str, Any]]
"""For each of PARTS the number of `images` and their `fingerprint`; under `left_out` counts by the reason."""


def take_inventory(splits: Splits) -> Inventory:
    """Count the images of each part and compute their fingerprints."""
    sources = {part: getattr(splits, part) for part in PARTS}
    parts = {part: {"images": len(each), "fingerprint": each.fingerprint()} for part, each in sources.items()}
    return parts | {"left_out": {printable(what): count for what, count in sorted(splits.left_out.items()) if count}}


def inventory_number(inventory: Inventory) -> int:
    """Digest of all fingerprints as a number of 60 bits, which processes can compare."""
    digests = "".join(inventory[part]["fingerprint"] for part in PARTS)
    return int(hashlib.sha256(digests.encode()).hexdigest()[:15], 16)


def inventory_lines(splits: Splits) -> list[str]:
    """A line with the numbers of images and, if anything was left out, a second one that says what."""
    train, valid, test = len(splits.train), len(splits.valid), len(splits.test)
    both = splits.test is splits.valid
    held_out = f"{valid:,} validation and test" if both else f"{valid:,} validation, {test:,} test"
    how = f", split {splits.how}" if splits.how else ""
    lines = [f"Images: {train + valid + test * (not both):,} found{how}: {train:,} training, {held_out}."]
    said = left_out_words(splits.left_out)
    return [*lines, *([printable(f"Left out: {said}.")] if said else [])]


def left_out_words(left_out: Mapping[str, int]) -> str:
    """What was left out, in words: the most frequent endings first, then the other reasons."""
    counts = {what: count for what, count in left_out.items() if count}
    endings = sorted((what for what in counts if what.startswith(".")), key=lambda what: (-counts[what], what))
    others = sorted(what for what in counts if not what.startswith("."))
    said = [f"{counts[what]:,} × {what}" for what in [*endings[:_ENDINGS_SHOWN], *others[:_REASONS_SHOWN]]]
    for more, words in ((endings[_ENDINGS_SHOWN:], "with other endings"), (others[_REASONS_SHOWN:], "of other kinds")):
        said += [f"{sum(counts[what] for what in more):,} {words}"] if more else []
    return ", ".join(said)


def differences(earlier: Inventory, now: Inventory) -> list[str]:
    """A few words for each part whose images have changed; empty if none has."""
    found = []
    for part in PARTS:
        before, after = earlier[part]["images"], now[part]["images"]
        if before != after:
            found.append(f"{part}: {before:,} → {after:,} images")
        elif earlier[part] != now[part]:
            found.append(f"{part}: {after:,} other images")
    return found

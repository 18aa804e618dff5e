"""What a data set was found to hold: for a person, for a log, and to tell other images apart when a run goes on."""

import hashlib
from collections.abc import Mapping
from typing import Any

from vdvae_lr.datasets.finding import left_out_words
from vdvae_lr.datasets.sources import Splits
from vdvae_lr.errors import printable

PARTS = ("train", "valid", "test")

Inventory = Mapping[str, Mapping[str, Any]]
"""For each of PARTS its `images` and their `fingerprint`; under `left_out` how many things were, by the reason."""


def take_inventory(splits: Splits) -> Inventory:
    """Count the images of each part, and digest what they are."""
    sources = {part: getattr(splits, part) for part in PARTS}
    parts = {part: {"images": len(each), "fingerprint": each.fingerprint()} for part, each in sources.items()}
    return parts | {"left_out": {printable(what): count for what, count in sorted(splits.left_out.items()) if count}}


def inventory_number(inventory: Inventory) -> int:
    """A number of 60 bits that differs where the images do, for processes to compare."""
    digests = "".join(inventory[part]["fingerprint"] for part in PARTS)
    return int(hashlib.sha256(digests.encode()).hexdigest()[:15], 16)


def inventory_lines(splits: Splits) -> list[str]:
    """One line with the numbers of images, and one with what was left out, if anything was."""
    train, valid, test = len(splits.train), len(splits.valid), len(splits.test)
    both = splits.test is splits.valid
    held_out = f"{valid:,} validation and test" if both else f"{valid:,} validation, {test:,} test"
    how = f", split {splits.how}" if splits.how else ""
    lines = [f"Images: {train + valid + test * (not both):,} found{how}: {train:,} training, {held_out}."]
    said = left_out_words(splits.left_out)
    return [*lines, *([printable(f"Left out: {said}.")] if said else [])]


def differences(earlier: Inventory, now: Inventory) -> list[str]:
    """A few words for each part that holds other images now; empty where all are the same."""
    return [_difference(part, earlier[part], now[part]) for part in PARTS if earlier[part] != now[part]]


def _difference(part: str, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if earlier["images"] != now["images"]:
        return f"{part}: {earlier['images']:,} → {now['images']:,} images"
    return f"{part}: {now['images']:,} other images"

"""Features over any number of processes, and those of a data set's images, which are computed once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from measured_pixels import measuring_of
from PIL import Image
from refusals import refused
from stand_in_extractor import stand_in_extractor
from torch import Tensor

from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.sources import ArraySource, Pixels, Rows
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quality import features
from vdvae_lr.evaluation.quality.features import cache_path, gather_features, image_features
from vdvae_lr.processes.world import World


class NeverRead:
    """A data set that nobody may read from."""

    in_memory, replaced_images = True, 0

    def __init__(self, source: Any) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def fingerprint(self) -> str:
        return self._source.fingerprint()

    def read(self, indices: Sequence[int] | Rows) -> Pixels:
        raise AssertionError("an image was read")


def quarters(pixels: Tensor) -> Tensor:
    """The features of (N, C, 8, 8), by the definition of the stand-in."""
    halves = pixels.double().mean(1).reshape(-1, 2, 4, 2, 4).mean((2, 4))
    return halves.flatten(1) / 255


def test_features_are_those_of_the_pictures_in_their_order(pixels: Tensor, in_worlds: Callable[..., Any]) -> None:
    def gather(world: World) -> Tensor:
        batches = [(batch.indices, batch.pixels) for batch in measuring_of(pixels, world, batch=2).batches("x")]
        return gather_features(stand_in_extractor(), batches, len(pixels), "pictures", world)

    for size in (1, 2, 3):
        for found in in_worlds(size, gather):
            torch.testing.assert_close(found, quarters(pixels).float())


def test_grey_pictures_are_repeated_in_three_channels(pixels: Tensor) -> None:
    grey = pixels[:, :1]
    assert torch.equal(stand_in_extractor()(grey), stand_in_extractor()(grey.repeat(1, 3, 1, 1)))


def test_features_without_a_value_are_refused(pixels: Tensor, world: World) -> None:
    extractor = stand_in_extractor()
    extractor.network.scale.fill_(torch.inf)
    with refused("features of samples", "NaN or infinite", "check the extractor's weights"):
        gather_features(extractor, [([0, 1], pixels[:2])], 2, "samples", world)


def test_the_second_model_reads_no_image(pixels: Tensor, tmp_path: Path, in_worlds: Callable[..., Any]) -> None:
    def measure(world: World, watched: bool) -> tuple[Tensor | None, str]:
        measuring = measuring_of(pixels, world)
        source = NeverRead(measuring.source) if watched else measuring.source
        return image_features(replace(measuring, source=source), stand_in_extractor(), tmp_path / "kept.safetensors")

    for size in (2, 1):
        (tmp_path / "kept.safetensors").unlink(missing_ok=True)
        first, *others = in_worlds(size, lambda world: measure(world, False))
        again, *_ = in_worlds(size, lambda world: measure(world, True))
        assert torch.equal(first[0], again[0])
        torch.testing.assert_close(first[0], quarters(pixels).float())
        assert [other[0] for other in others] == [None] * (size - 1)
        assert "are kept in" in first[1] and "come from" in again[1]


@pytest.mark.parametrize("damage", ["cut", "changed", "another file", "another number"])
def test_a_damaged_cache_is_computed_again(pixels: Tensor, world: World, tmp_path: Path, damage: str) -> None:
    path, measuring = tmp_path / "kept.safetensors", measuring_of(pixels, world)
    expected, _ = image_features(measuring, stand_in_extractor(), path)
    content = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(content[:-9])
        case "changed":
            path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        case "another file":
            path.write_bytes(b"no safetensors")
        case "another number":
            image_features(replace(measuring, examples=5), stand_in_extractor(), path)
    for words in ("are kept in", "come from"):
        found, sentence = image_features(measuring, stand_in_extractor(), path)
        assert torch.equal(found, expected) and words in sentence


def test_processes_that_write_at_once_leave_a_whole_file(pixels: Tensor, world: World, tmp_path: Path) -> None:
    path, measuring = tmp_path / "kept.safetensors", measuring_of(pixels, world)
    expected = torch.rand(7, 4)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: features._write(path, expected), range(40)))
    found, sentence = image_features(measuring, stand_in_extractor(), path)
    assert torch.equal(found, expected) and "come from" in sentence
    assert {each.name for each in tmp_path.iterdir()} == {path.name, f".{path.name}.lock"}


def test_a_cache_that_cannot_be_written_costs_nothing(pixels: Tensor, world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found, sentence = image_features(measuring_of(pixels, world), stand_in_extractor(), tmp_path / "file" / "kept")
    torch.testing.assert_close(found, quarters(pixels).float())
    assert sentence.startswith("The next model computes the features of the images again: ")


def test_everything_that_changes_the_features_has_its_own_file(pixels: Tensor, world: World) -> None:
    measuring, extractor = measuring_of(pixels, world), stand_in_extractor()

    def of(images: Tensor, order: Tensor) -> Measuring:
        source = ArraySource(images.permute(0, 2, 3, 1).numpy(), order.numpy(), "")
        return replace(measuring, source=source)

    forth = torch.arange(7)
    cases = [
        (measuring, extractor),
        (replace(measuring, examples=6), extractor),
        (of(pixels, forth.flip(0)), extractor),
        (of(pixels[:, :1], forth), extractor),
        (of(pixels[..., :4, :4], forth), extractor),
        (measuring, stand_in_extractor("f" * 64)),
    ]
    assert len({cache_path(*case) for case in cases}) == len(cases)
    assert cache_path(replace(measuring, batch=1, seed=9), extractor) == cache_path(measuring, extractor)


def test_two_folders_with_the_same_names_of_files_have_two_files(world: World, tmp_path: Path) -> None:
    paths = []
    for level in (10, 20):
        folder = tmp_path / str(level)
        folder.mkdir()
        for number in range(40):
            Image.new("RGB", (8, 8), (level, level, level)).save(folder / f"{number:02}.png")
        splits = open_splits(DataSettings("folder", str(folder)), 8, 3)
        measuring = Measuring(splits.train, len(splits.train), 4, 0, world, lambda items, total, what: items)
        paths.append(cache_path(measuring, stand_in_extractor()))
    assert paths[0] != paths[1]

"""The views of `vdvae-lr app`: what a visitor chooses reaches the models, and the models get the same noise."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refused
from saved_models import save_tiny, shake

from vdvae_lr.app.workbench import Workbench
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.pictures.images import Pictures
from vdvae_lr.pictures.picture_grid import picture_grid
from vdvae_lr.pictures.swapping import swap


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Two models that differ, and three images of noise."""
    folder = tmp_path_factory.mktemp("models")
    sources = {name: save_tiny(folder / name, shake, seed=seed) for seed, name in enumerate(("one", "two"))}
    models = {name: PretrainedModel.from_pretrained(source) for name, source in sources.items()}
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8)
    return Workbench(models, images)


def same(first: Image.Image | None, second: Image.Image | None) -> bool:
    assert first is not None and second is not None
    return first.size == second.size and bool((np.asarray(first) == np.asarray(second)).all())


@pytest.fixture
def own(bench: Workbench) -> Pictures:
    return 255 - bench.examples[0]


def test_noise_follows_variance_unit_groups_and_seed(bench: Workbench) -> None:
    def view(variance: float = 1.0, unit: str = "raw", groups: range = range(3), seed: int = 0) -> Image.Image | None:
        return bench.under_noise(None, variance, unit, groups, False, seed)  # type: ignore[arg-type]

    assert same(view(), view())
    for other in (view(2.0), view(unit="prior_scale"), view(groups=range(1)), view(seed=1)):
        assert not same(view(), other)
    without, differences = view(0.0), bench.under_noise(None, 1.0, "raw", range(3), True, 0)
    assert without is not None and differences is not None and without.height < differences.height


def test_a_visitors_image_stands_first(bench: Workbench, own: Pictures) -> None:
    alone = Workbench(bench.models, np.concatenate([own[None], bench.examples]))
    assert same(bench.from_first_groups(own, 1, 0.1, 0), alone.from_first_groups(None, 1, 0.1, 0))
    assert not same(bench.from_first_groups(None, 1, 0.1, 0), bench.from_first_groups(None, 3, 0.1, 0))


def test_each_group_has_its_temperature(bench: Workbench) -> None:
    assert not same(bench.samples(0, 1.0, 1.0, 1.0), bench.samples(0, 1.0, 0.0, 1.0))
    assert same(bench.samples(0, 0.0, 0.0, 0.0), bench.samples(0, 0.0, 0.0, 0.0))


def test_two_images_are_mixed_both_ways(bench: Workbench, own: Pictures) -> None:
    pair = bench.pair(own, bench.examples[1])
    assert pair is not None
    mixed = {name: swap(model, pair, first_groups=1) for name, model in bench.models.items()}
    rows = [np.stack([each[0, 0], each[0, 1], each[1, 0], each[1, 1]]) for each in mixed.values()]
    columns = ["A", "first of A,\nothers of B", "first of B,\nothers of A", "B"]
    assert same(bench.swapped(pair, 1), picture_grid(rows, ["one", "two"], columns))
    assert not same(bench.between(pair), bench.between(pair[::-1].copy()))


def test_without_any_image_there_is_nothing_to_show(bench: Workbench, own: Pictures) -> None:
    empty = Workbench(bench.models, bench.examples[:0])
    assert empty.under_noise(None, 1.0, "raw", range(3), False, 0) is None
    assert empty.from_first_groups(None, 1, 0.1, 0) is None
    assert empty.pair(None, None) is None and empty.swapped(None, 1) is None and empty.between(None) is None
    assert empty.under_noise(own, 1.0, "raw", range(3), False, 0) is not None
    with refused("you have not added an image", "add one", "choose a number"):
        bench.pair(None, own)


def test_a_file_is_read_as_the_model_takes_it(bench: Workbench, tmp_path: Path) -> None:
    Image.new("RGB", (40, 50), (255, 0, 0)).save(tmp_path / "red.png")
    picture, change = bench.read(str(tmp_path / "red.png"))
    assert picture.shape == (32, 32, 1)
    assert "cut from 40x50" in change and "reduced to 32x32" in change
    (tmp_path / "no.png").write_bytes(b"no image")
    with refused("no.png", "cannot be read as an image", "give a"):
        bench.read(str(tmp_path / "no.png"))

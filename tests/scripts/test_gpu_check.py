"""The check for a CUDA card, with the CPU in the card's place: that its sections still fit the package."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from saved_models import TINY

from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.logistic_mixture import Bins, LogisticMixture
from vdvae_lr.processes.world import World


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    for folder in ("benchmarks", "gpu_check"):
        monkeypatch.syspath_prepend(str(CHECKOUT_ROOT / "scripts" / folder))
    from benchmark import Report
    from gpu_check_table import Check

    yield Check(World(0, 1, torch.device("cpu")), Report(), float("inf"), False)
    for name in [name for name in sys.modules if name.startswith(("benchmark", "gpu_check"))]:
        del sys.modules[name]


def rows(printed: str) -> list[list[str]]:
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_small_model_starts_from_the_bundled_weights(check: object) -> None:
    from benchmark import SMALL, settings_of, small_start

    start, words = small_start(settings_of(SMALL))
    assert words == "bundled weights"
    assert start.values is not None and start.values.path.is_file()


def test_every_section_of_an_evaluation_is_a_row(
    check: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_check_evaluation

    from vdvae_lr.evaluation.sections import SECTIONS

    torch.manual_seed(0)  # a tiny model: the whole Jacobian of the bundled one takes half a minute
    tiny = SimpleNamespace(model=VDVAE(replace(TINY, image_size=8, enc_blocks="8x1,8d8,1x1", dec_blocks="1x1,8m1")))
    images = SimpleNamespace(pixels=torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8))
    monkeypatch.setattr(gpu_check_evaluation, "build_training", lambda *given: tiny)
    monkeypatch.setattr(gpu_check_evaluation, "small_images", lambda *given, **named: images)
    monkeypatch.setattr(gpu_check_evaluation, "SectionSettings", lambda: gpu_check_evaluation.LITTLE)
    monkeypatch.setattr(gpu_check_evaluation, "_big_rows", lambda check, columns: None)  # minutes on a CPU
    gpu_check_evaluation.check_evaluation(check)  # type: ignore[arg-type]
    verdicts = [row[1] for row in rows(capsys.readouterr().out)[2:]]
    assert verdicts == ["ok"] * (len(SECTIONS) + 1)
    assert check.sound  # type: ignore[attr-defined]


def test_every_kind_of_shallow_step_is_a_row(
    check: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_check
    from benchmark_shallow import PRESETS

    monkeypatch.setattr(gpu_check, "PRESETS", {name: PRESETS[name] for name in ("VAE",)})
    speed = gpu_check._shallow_speed
    monkeypatch.setattr(gpu_check, "_shallow_speed", lambda *arguments: speed(*arguments, steps=2))
    gpu_check.check_shallow(check)
    found = rows(capsys.readouterr().out)[2:]
    assert [row[0] for row in found] == ["VAE"]
    assert all(float(cell) > 0 for row in found for cell in row[1:])
    assert check.sound  # type: ignore[attr-defined]


def test_our_steps_stand_beside_a_plain_one(check: object, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu_check_plain
    from benchmark import SMALL, StepCase

    gpu_check_plain.check_against_plain(check, SMALL, counts=(1,))  # type: ignore[arg-type]
    head, _, found = rows(capsys.readouterr().out)
    assert len(found) == len(head) == len(gpu_check_plain.COLUMNS)
    plain, ours, faster = (float(cell) for cell in found[1:4])
    assert faster == pytest.approx(plain / ours, rel=0.1)
    assert float(found[5]) > 0 and 0 < float(found[-1]) < 1  # no step is faster than its memory
    assert set(check.steps) == {StepCase(1, objective, preset=SMALL) for objective in ("ELBO", "LR")}  # type: ignore[attr-defined]
    assert check.sound  # type: ignore[attr-defined]


def test_our_samples_stand_beside_plain_ones(
    check: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_check_sampling
    from benchmark import SMALL

    for name, number in {"WARM_UP": 1, "TIMED": 2, "COMPARED": 4, "COMPARED_BATCH": 2}.items():
        monkeypatch.setattr(gpu_check_sampling, name, number)
    gpu_check_sampling.check_sampling(check, SMALL, counts=(1,))  # type: ignore[arg-type]
    speeds, others = (rows(part) for part in capsys.readouterr().out.split("## Pictures"))
    head, _, found = speeds
    assert len(found) == len(head) == len(gpu_check_sampling.COLUMNS)
    plain, *_, graph, faster = (float(cell) for cell in found[1:6])
    assert faster == pytest.approx(graph / plain, rel=0.1)
    assert [row[1] for row in others[2:]] == ["ok", "ok", "-"]
    assert "mean difference 0.000" in others[3][2] and "a second with 1 thread(s)" in others[4][2]
    assert check.sound  # type: ignore[attr-defined]


def test_a_kernel_stands_beside_the_formula(check: object, capsys: pytest.CaptureFixture[str]) -> None:
    import gpu_check_kernels
    from benchmark import SMALL

    def formula(parameters: torch.Tensor, image: torch.Tensor, bins: Bins) -> tuple[torch.Tensor, torch.Tensor]:
        return LogisticMixture(parameters, image.shape[1], bins).with_slopes(image)

    gpu_check_kernels.check_kernels(check, (SMALL,), (1, 2), lambda: formula)  # type: ignore[arg-type]
    head, _, *found = rows(capsys.readouterr().out)
    assert [row[:3] for row in found] == [[f"{SMALL}, {images}", "ok", "1.00"] for images in (1, 2)]
    assert all(len(row) == len(head) and min(map(float, row[3:])) > 0 for row in found)
    assert check.sound  # type: ignore[attr-defined]

"""Where a run starts: weights, averages and optimiser state by file or name; fetched once, never asked for again."""

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from launching import final_tensors, launch, train_command
from loopback_hub import LoopbackHub
from rich.progress import Progress
from small_config import SMALL
from small_published import NAME as PUBLISHED_NAME
from small_published import publish, random_model
from training_runs import ALONE, TINY, assert_same_bits, tiny_settings, write_images

from vdvae_lr.cli.shared.config import resolve_settings
from vdvae_lr.cli.train import main
from vdvae_lr.errors import EXIT_RUN_AGAIN, InputError
from vdvae_lr.files.run_folder import complete_checkpoints
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.sources import WeightSource, find_weights
from vdvae_lr.hub.vdvae.tensors import to_published, write_published
from vdvae_lr.model.vdvae.vae import VAEConfig
from vdvae_lr.processes.world import World
from vdvae_lr.training.build import StartWeights, build_training, find_start_weights
from vdvae_lr.training.loop import train
from vdvae_lr.training.step import TrainingStep

UPDATES = 40_000
REPOSITORY = "tester/tiny"
CONFIG = tiny_settings().model


def random_state(model: VDVAE | Any, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(tensor.shape, generator=generator) for name, tensor in model.state_dict().items()}


def write_optimiser(path: Path, config: VAEConfig = CONFIG) -> dict[str, dict[str, torch.Tensor]]:
    """A file as apex writes it; its averages under our names."""
    model = random_model(0, config)
    moments = {kind: random_state(model, seed) for seed, kind in enumerate(("exp_avg", "exp_avg_sq"))}
    published = {kind: list(to_published(model, named).values()) for kind, named in moments.items()}
    count = len(published["exp_avg"])
    state = {number: {kind: tensors[number] for kind, tensors in published.items()} for number in range(count)}
    torch.save({"state": state, "param_groups": [{"lr": 1.0, "step": UPDATES, "params": list(range(count))}]}, path)
    return moments


@pytest.fixture
def published_files(tmp_path: Path) -> dict[str, str]:
    """A published run's weights, averages and optimiser state, by the settings that take them."""
    settings = {}
    for seed, name in enumerate(("restore_path", "restore_ema_path")):
        model = random_model(seed, CONFIG)
        settings[name] = str(tmp_path / f"{name}.th")
        write_published(model, model.state_dict(), Path(settings[name]))
    settings["restore_optimizer_path"] = str(tmp_path / "opt.th")
    write_optimiser(tmp_path / "opt.th")
    return settings


def built(**changes: Any) -> TrainingStep:
    settings = tiny_settings(**changes)
    start = find_start_weights(settings)
    return build_training(settings, ALONE, start)


def held(training: TrainingStep) -> dict[str, dict[str, torch.Tensor]]:
    """What the optimiser holds, by kind and parameter name."""
    optimiser = training.optimiser
    return {kind: optimiser.weights.named(buffer) for kind, buffer in optimiser.flat_state().items()}


def run_in(folder: Path, **changes: Any) -> int:
    return train(tiny_settings(**{"save_dir": str(folder), "desc": "run"} | changes), ALONE)


def test_a_published_run_goes_on_with_everything_it_had(published_files: dict[str, str], tmp_path: Path) -> None:
    training = built(**published_files)
    found = held(training)
    assert_same_bits(dict(random_model(0, CONFIG).state_dict()), found["state"])
    assert_same_bits(dict(random_model(1, CONFIG).state_dict()), found["average"])
    for kind, named in write_optimiser(tmp_path / "again.th").items():
        assert_same_bits(named, found[kind])
    assert int(training.optimiser.update_count()) == UPDATES


@pytest.mark.parametrize(
    ("given", "seeds"), [(["restore_path"], (0, 0)), (["restore_ema_path"], (1, 1)), (["pretrained"], (1, 1))]
)
def test_one_file_serves_for_weights_and_averages(
    published_files: dict[str, str], given: list[str], seeds: tuple[int, int]
) -> None:
    files = published_files | {"pretrained": published_files["restore_ema_path"]}
    training = built(**{name: files[name] for name in given})
    found = held(training)
    for seed, kind in zip(seeds, ("state", "average"), strict=True):
        assert_same_bits(dict(random_model(seed, CONFIG).state_dict()), found[kind])
    assert int(training.optimiser.update_count()) == 0


def test_the_count_of_updates_goes_on_in_the_run(published_files: dict[str, str], tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    assert run_in(tmp_path, data_root=str(images), **published_files) == 0
    assert int(final_tensors(tmp_path)["optimiser.safetensors/counters/step"]) == UPDATES + TINY["iters"]


def test_a_run_that_goes_on_uses_its_own_state(published_files: dict[str, str], tmp_path: Path) -> None:
    """With the files gone it must."""
    places = {"data_root": str(write_images(tmp_path / "images")), "keep_checkpoints": 3, **published_files}
    assert run_in(tmp_path / "unbroken", **places) == run_in(tmp_path / "broken", **places) == 0
    checkpoints = tmp_path / "broken" / "run" / "checkpoints"
    for step in ("step-00000004", "step-00000006"):
        shutil.rmtree(checkpoints / step)
    for path in published_files.values():
        Path(path).unlink()
    assert run_in(tmp_path / "broken", **places) == 0
    assert_same_bits(final_tensors(tmp_path / "unbroken"), final_tensors(tmp_path / "broken"))


def test_published_names_stand_for_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = publish(monkeypatch, tmp_path, config=CONFIG)
    write_optimiser(tmp_path / published.file_name("opt"))
    names = dict.fromkeys(("restore_path", "restore_ema_path", "restore_optimizer_path"), PUBLISHED_NAME)
    training = built(**names, weights_mirror=str(tmp_path))
    found = held(training)
    assert_same_bits(dict(random_model(1, CONFIG).state_dict()), found["state"])
    assert_same_bits(dict(random_model(0, CONFIG).state_dict()), found["average"])
    assert int(training.optimiser.update_count()) == UPDATES


def test_from_scratch_needs_nothing() -> None:
    settings = tiny_settings()
    assert find_start_weights(settings) == StartWeights()


def refusal(**changes: Any) -> str:
    with pytest.raises(InputError) as caught:
        built(**changes)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_an_optimisers_state_without_its_weights_is_refused(published_files: dict[str, str]) -> None:
    message = refusal(restore_optimizer_path=published_files["restore_optimizer_path"])
    assert "restore_optimizer_path needs the weights it belongs to" in message and "--restore_path" in message


def test_the_published_state_is_not_fetched_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigabyte; its absence shows whether it was asked for."""
    publish(monkeypatch, tmp_path, config=CONFIG)
    message = refusal(restore_optimizer_path=PUBLISHED_NAME, weights_mirror=str(tmp_path))
    assert "needs the weights it belongs to" in message


def test_an_absent_file_is_named_with_its_setting(published_files: dict[str, str], tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.th")
    assert f"optimiser state {absent} does not exist" in refusal(**published_files | {"restore_optimizer_path": absent})
    for name in ("restore_path", "restore_ema_path", "pretrained"):
        assert f"weights file {absent} does not exist" in refusal(**{name: absent})


def test_the_state_of_another_model_is_refused(published_files: dict[str, str]) -> None:
    write_optimiser(Path(published_files["restore_optimizer_path"]), SMALL)
    assert "is the optimiser state of another model" in refusal(**published_files)


def test_a_models_file_given_for_the_state_is_refused(published_files: dict[str, str]) -> None:
    message = refusal(**published_files | {"restore_optimizer_path": published_files["restore_path"]})
    assert "is no optimiser state" in message and "*-opt.th" in message


def test_weights_of_other_settings_are_refused_with_the_first_difference(tmp_path: Path) -> None:
    VDVAE(SMALL).save_pretrained(tmp_path / "other")
    message = refusal(pretrained=str(tmp_path / "other"))
    assert "is a model with other settings (dec_blocks '1x1,4m1,4x1,8m4,8x1', here '1x1,4m1,8m4')" in message


def signalled(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """Let the signal come, once, while weights are being fetched."""
    left = [number]

    def fetch(*_: object) -> StartWeights:
        if left:
            os.kill(os.getpid(), left.pop())
        return StartWeights()

    monkeypatch.setattr("vdvae_lr.training.run.find_start_weights", fetch)


def test_ctrl_c_ends_a_fetch_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no step to finish; and what Ctrl-C does afterwards is what it did before."""
    images, before = write_images(tmp_path / "images"), signal.getsignal(signal.SIGINT)
    signalled(monkeypatch, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path, data_root=str(images))
    assert not (tmp_path / "run").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_batch_systems_signal_in_a_fetch_is_heeded_after_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "images")
    signalled(monkeypatch, signal.SIGTERM)
    assert run_in(tmp_path, data_root=str(images)) == EXIT_RUN_AGAIN
    assert [path.name for path in complete_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000001"]


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


def put_on(hub: LoopbackHub, config: VAEConfig, folder: Path) -> None:
    """A tiny model's weights, in the repository of that name and in `folder`."""
    torch.manual_seed(0)
    VDVAE(config).save_pretrained(folder)
    hub.put(REPOSITORY, {path.name: path.read_bytes() for path in folder.iterdir()})


def processes_of(save_dir: Path) -> list[int]:
    """How many processes made each checkpoint that there is."""
    folder = save_dir / "run" / "checkpoints"
    return [int(json.loads((path / "state.json").read_text())["processes"]) for path in complete_checkpoints(folder)]


def test_two_processes_fetch_once_and_a_resumed_run_asks_nothing(hub: LoopbackHub, tmp_path: Path) -> None:
    """The cache is cold at first. The run goes on in this process, with another cold cache."""
    images = write_images(tmp_path / "images")
    words = train_command(images, tmp_path, hps="fashion", pretrained=REPOSITORY, keep_checkpoints=3)
    settings, _ = resolve_settings(words[1:], "train.py")
    put_on(hub, settings.model, tmp_path / "made")
    ended = launch("srun", tmp_path / "output", words, **hub.environment(tmp_path / "home"))
    assert [one.code for one in ended] == [0, 0], "\n".join(one.errors for one in ended)
    got = [request.path for request in hub.requests if request.method == "GET"]
    assert sorted(path.rpartition("/")[2] for path in got) == ["SHA256SUMS", "config.json", "model.safetensors"]
    assert processes_of(tmp_path) == [2, 2, 2]
    finished, asked = final_tensors(tmp_path), len(hub.requests)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{TINY['iters']:08d}")
    with hub.client(tmp_path / "cold"):
        assert train(settings, ALONE) == 0
    assert len(hub.requests) == asked
    assert processes_of(tmp_path) == [2, 2, 1]
    for name, tensor in final_tensors(tmp_path).items():
        torch.testing.assert_close(tensor, finished[name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_run_goes_on_when_the_hub_is_gone(tmp_path: Path) -> None:
    places = {"data_root": str(write_images(tmp_path / "images")), "pretrained": REPOSITORY, "keep_checkpoints": 3}
    with LoopbackHub() as hub, hub.client(tmp_path / "home"):
        put_on(hub, CONFIG, tmp_path / "made")
        assert run_in(tmp_path, **places) == 0
    finished = final_tensors(tmp_path)
    shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{TINY['iters']:08d}")
    with hub.client(tmp_path / "cold"):
        assert run_in(tmp_path, **places) == 0
        with pytest.raises(InputError, match=f"{REPOSITORY}.*Connection refused"):
            run_in(tmp_path, **places, desc="new")
    assert_same_bits(finished, final_tensors(tmp_path))


def test_the_first_step_of_a_run_from_the_hub_is_that_of_the_same_weights_here(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    """So it trains what it fetched."""
    images = write_images(tmp_path / "images")
    put_on(hub, CONFIG, tmp_path / "made")
    with hub.client(tmp_path / "home"):
        assert run_in(tmp_path / "hub", data_root=str(images), pretrained=REPOSITORY, iters=1) == 0
    assert run_in(tmp_path / "here", data_root=str(images), pretrained=str(tmp_path / "made"), iters=1) == 0
    assert_same_bits(final_tensors(tmp_path / "hub"), final_tensors(tmp_path / "here"))


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of weights that are looked up."""
    names: list[str] = []

    def noted(name: str, *args: Any, **more: Any) -> WeightSource:
        names.append(name)
        return find_weights(name, *args, **more)

    for module in ("vdvae_lr.cli.shared.config", "vdvae_lr.training.build"):
        monkeypatch.setattr(f"{module}.find_weights", noted)
    return names


@pytest.fixture
def read_for_digests(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes of the files that are read for their digests; all files count as old enough to remember those."""
    inodes: list[int] = []
    wrap_file, later = Progress.wrap_file, time.time_ns() + 600 * 10**9

    def noted(bar: Progress, file: BinaryIO, **more: Any) -> BinaryIO:
        inodes.append(os.fstat(file.fileno()).st_ino)
        return wrap_file(bar, file, **more)

    monkeypatch.setattr(Progress, "wrap_file", noted)
    monkeypatch.setattr("vdvae_lr.files.digests.time.time_ns", lambda: later)
    return inodes


@pytest.mark.parametrize("kind", ["run", "repository"])
def test_weights_that_bring_their_settings_are_found_and_read_once(
    hub: LoopbackHub, tmp_path: Path, looked_up: list[str], read_for_digests: list[int], kind: str
) -> None:
    images = write_images(tmp_path / "images")
    source, place = (str(tmp_path / "run"), tmp_path / "run") if kind == "run" else (REPOSITORY, tmp_path / "home")
    options = f"--dataset folder --data_root {images} --iters 1 --n_batch 2 --device cpu --num_workers 0"
    with hub.client(tmp_path / "home"):
        put_on(hub, CONFIG, tmp_path / "made")
        if kind == "run":
            assert run_in(tmp_path, data_root=str(images), iters=1) == 0
        read_for_digests.clear()
        assert main(f"--pretrained {source} --save_dir {tmp_path / 'new'} {options}".split()) == 0
    assert looked_up == [source]
    weights = "ema.safetensors" if kind == "run" else "model.safetensors"
    (inode,) = {path.stat().st_ino for path in place.rglob(weights)}
    assert read_for_digests.count(inode) == (0 if kind == "run" else 1)  # a run knows the digests that it has written


class Disagreeing(World):
    """A world in which another process has another number."""

    def agree(self, number: int) -> bool:
        return False


def test_processes_that_found_different_weights_are_told_so(published_files: dict[str, str]) -> None:
    settings = tiny_settings(**published_files)
    start = find_start_weights(settings)
    with pytest.raises(InputError, match=r"found different weights called '.*restore_path.*'; give one --revision"):
        build_training(settings, Disagreeing(0, 1, torch.device("cpu")), start)

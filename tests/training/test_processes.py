"""Several real processes are one: same gradients, same update on each, same bound, and one message a step."""

import fcntl
import os
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import process_measurements
import pytest
import torch
from closeness import relative_error
from process_measurements import (
    DTYPES,
    GRAD_CLIP,
    HELD_OUT,
    OBJECTIVES,
    RUN_LENGTHS,
    TRAINING_SIZES,
    UPDATES,
    WORLD_SIZES,
    measure,
)
from recorded_events import watched
from started_processes import Start, run_together
from training_runs import ALONE, write_images

from vdvae_lr.files.bundled import CHECKOUT_ROOT

Worlds = dict[int, list[dict[str, Any]]]  # size → what each rank found

SEVERAL = TRAINING_SIZES[1:]
GRADIENT_TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
BOUND_TOLERANCE = {"float64": 1e-9, "float32": 1e-5}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    """What one process and each of two, three and four found; started once, also for several pytest workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "processes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = shared / "processes.finished"
        if not finished.exists():
            folder = tmp_path_factory.mktemp("processes")
            write_images(folder / "images")
            run_processes(folder, max(WORLD_SIZES))
            finished.write_text(str(folder))
        folder = Path(finished.read_text())
    found = {size: [torch.load(folder / f"{size}-{rank}.pt") for rank in range(size)] for size in WORLD_SIZES}
    return found | {1: [measure(ALONE, folder)]}


def run_processes(folder: Path, count: int) -> None:
    """Start the processes and see them all end well."""
    script = str(Path(process_measurements.__file__))
    places = os.pathsep.join([str(CHECKOUT_ROOT), str(Path(script).parent)])
    commands = [[sys.executable, script, str(rank), str(folder)] for rank in range(count)]
    ended = run_together(folder, [Start(command, {"PYTHONPATH": places}) for command in commands])
    assert [process.code for process in ended] == [0] * count, "\n".join(process.errors[-3000:] for process in ended)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("size", SEVERAL)
def test_gradient_is_that_of_one_process(worlds: Worlds, size: int, objective: str, dtype: str) -> None:
    """Four micro-batches, by one process, two or four."""
    case = f"{objective}, {dtype}"
    expected = worlds[1][0]["gradients"][case]
    assert expected.dtype == DTYPES[dtype]
    for found in worlds[size]:
        assert relative_error(found["gradients"][case], expected) <= GRADIENT_TOLERANCE[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_objectives_have_gradients_of_their_own(worlds: Worlds, dtype: str) -> None:
    """Were they alike, the test above would say nothing about Latent Reconstruction."""
    gradients = [worlds[1][0]["gradients"][f"{objective}, {dtype}"] for objective in OBJECTIVES]
    for first, second in combinations(gradients, 2):
        assert relative_error(first, second) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("size", SEVERAL)
def test_every_process_makes_the_same_update_to_the_bit(worlds: Worlds, size: int, name: str) -> None:
    first, *others = (found["updates"][name] for found in worlds[size])
    for other in others:
        different = [key for key in first if not first[key].equal(other[key]) and not first[key].isnan().all()]
        assert not different
        assert first.keys() == other.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, changes in UPDATES.items() if "precision" not in changes])
@pytest.mark.parametrize("size", SEVERAL)
def test_the_update_is_that_of_one_process(worlds: Worlds, size: int, name: str) -> None:
    expected, found = worlds[1][0]["updates"][name], worlds[size][0]["updates"][name]
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if value.isnan().any():
            assert found[key].isnan().equal(value.isnan()), key
        else:
            assert relative_error(found[key], value) <= GRADIENT_TOLERANCE["float64"], key


@pytest.mark.slow
@pytest.mark.parametrize("size", TRAINING_SIZES)
def test_updates_are_what_their_names_say(worlds: Worlds, size: int) -> None:
    """Applied, clipped or skipped in earnest, or the two tests above would compare nothing."""
    updates = worlds[size][0]["updates"]
    assert {name: int(update["skipped"]) for name, update in updates.items()} == {
        "as it is": 0,
        "clipped": 0,
        "skipped": 2,
        "not finite on the last process": 2,
        "scaled for float16": 0,
    }
    assert updates["clipped"]["gradient_norm"] > GRAD_CLIP
    for update in updates.values():
        for key in ("state", "average"):
            assert torch.equal(update[key], update["before"]) == (int(update["skipped"]) == 2), key


@pytest.mark.slow
def test_a_step_sends_one_message_and_waits_for_nothing(worlds: Worlds) -> None:
    """Two micro-batches for each of two processes, with every pass Latent Reconstruction can have."""
    for found in worlds[2]:
        assert found["steps"] == [{"collectives": ["c10d::allreduce_"], "waits": []}] * 2


@pytest.mark.slow
def test_a_longer_run_sends_one_message_more_for_each_step(worlds: Worlds) -> None:
    """The loop around the step adds nothing: the two lengths differ by steps, and all else both runs do alike."""
    shorter, longer = RUN_LENGTHS
    for found in worlds[2]:
        short, long = found["runs"]
        assert len(long["collectives"]) - len(short["collectives"]) == longer - shorter
        assert len(long["waits"]) == len(short["waits"])


@pytest.mark.parametrize(
    "wait",
    [float, bool, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.nonzero],
    ids=lambda wait: wait.__name__,
)
def test_a_wait_does_not_escape_the_watch(wait: Any) -> None:
    with watched() as traffic:
        assert traffic.waits == []
        wait(torch.ones(()) if wait is not torch.nonzero else torch.ones(2))
    assert traffic.waits


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", WORLD_SIZES)
def test_bound_is_that_of_one_process(worlds: Worlds, size: int, dtype: str) -> None:
    expected = worlds[1][0]["bounds"][dtype]["numbers"]
    for found in worlds[size]:
        torch.testing.assert_close(
            found["bounds"][dtype]["numbers"], expected, rtol=BOUND_TOLERANCE[dtype], atol=0.0, equal_nan=False
        )


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, *WORLD_SIZES])
def test_every_example_is_evaluated_once(worlds: Worlds, size: int) -> None:
    bounds = [found["bounds"]["float64"] for found in worlds[size]]
    assert sorted(torch.cat([bound["read"] for bound in bounds]).tolist()) == list(range(HELD_OUT))
    assert [int(bound["examples"]) for bound in bounds] == [HELD_OUT] * size

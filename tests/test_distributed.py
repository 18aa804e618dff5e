"""Launchers: what each one's environment means, and real runs of two processes that compute what one computes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_runs import TINY, write_images

from vdvae_lr import distributed
from vdvae_lr.distributed import Place, World, find_place, first_host, start_world
from vdvae_lr.errors import InputError

TRAIN = Path(__file__).parent.parent / "train.py"
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "1234"}
SLURM = {
    "SLURM_STEP_ID": "0",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "54321",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}


def test_nothing_set_is_one_process() -> None:
    assert (find_place({}).rank, find_place({}).size) == (0, 1)


def test_torchrun() -> None:
    place = find_place(TORCHRUN)
    assert (place.rank, place.size, place.local_rank, place.address, place.port) == (3, 4, 1, "node0", 1234)


def test_srun_agrees_on_host_and_port() -> None:
    place, other = find_place(SLURM), find_place(SLURM | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"})
    assert (place.rank, place.size, place.local_rank, place.address) == (9, 16, 1, "gpu07")
    assert (place.address, place.port) == (other.address, other.port)


def test_srun_that_speaks_pmi_is_still_srun() -> None:
    assert find_place(SLURM | {"PMI_SIZE": "16"}).rank == 9


def test_one_task_under_srun_needs_no_mpi() -> None:
    assert find_place(SLURM | {"SLURM_NTASKS": "1", "PMI_SIZE": "1"}).size == 1


@pytest.mark.parametrize(("visible", "card"), [(None, None), ("0,1", None), ("3", 0)])
def test_a_process_that_sees_one_card_of_its_own_takes_it(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, card: int | None
) -> None:
    """srun --gpus-per-task shows each task its own card; two processes that see the same card are refused."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    place = Place(rank=3, size=4, local_rank=3)
    if card is None:
        with pytest.raises(InputError, match="has no card of its own"):
            distributed._device("cuda", place)
    else:
        assert distributed._device("cuda", place) == torch.device("cuda", card)


def test_others_end_where_the_main_process_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "highest", lambda self, number: 1)  # as the main process says it
    with pytest.raises(SystemExit, match="2"):
        World(1, 2, torch.device("cpu")).on_main(lambda: pytest.fail("not on this process"))


def test_an_action_of_the_main_process_keeps_its_error() -> None:
    def fail() -> None:
        raise InputError("full")

    world = start_world("cpu")
    assert world.on_main(lambda: 3) == 3
    with pytest.raises(InputError, match="full"):
        world.on_main(fail)


def test_sbatch_alone_is_one_process() -> None:
    assert find_place({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "16"}).size == 1


@pytest.mark.parametrize(
    ("nodes", "host"), [("a1", "a1"), ("a[3-5,9]", "a3"), ("b-01,b-02", "b-01"), ("c[007]", "c007")]
)
def test_first_host_of_a_node_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize("missing", ["WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_half_set_torchrun_is_refused(missing: str) -> None:
    with pytest.raises(InputError, match=f"{missing}; start with torchrun"):
        find_place({name: value for name, value in TORCHRUN.items() if name != missing})


def test_half_set_slurm_is_refused() -> None:
    with pytest.raises(InputError, match="lacks SLURM_PROCID; start with srun"):
        find_place({name: value for name, value in SLURM.items() if name != "SLURM_PROCID"})


def tiny_arguments(images: Path, save_dir: Path, n_batch: int) -> list[str]:
    values = TINY | {"data_root": str(images), "save_dir": str(save_dir), "desc": "run", "n_batch": n_batch}
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def launch(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "SLURM_"))}
    environment |= {"OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def final_log(save_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (save_dir / "run" / "log.jsonl").read_text().splitlines()]


def launcher_command(name: str) -> list[str]:
    if name == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    pytest.importorskip("mpi4py")
    mpiexec = Path(sys.executable).with_name("mpiexec")
    if not mpiexec.exists():
        pytest.skip("no mpiexec beside this Python: pip install 'vdvae_lr[mpi]'")
    return [str(mpiexec), "-n", "2", "--oversubscribe", sys.executable]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "mpiexec"])
def test_a_failure_of_the_main_process_ends_them_all(tmp_path: Path, launcher: str) -> None:
    (tmp_path / "taken").write_text("mine")
    arguments = tiny_arguments(write_images(tmp_path / "images"), tmp_path / "taken", 2)
    done = launch([*launcher_command(launcher), str(TRAIN), *arguments])
    assert done.returncode != 0
    assert "choose another --save_dir" in done.stderr
    assert 'train.py", line' not in done.stderr  # no process ends with a traceback


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "mpiexec"])
def test_two_processes_compute_what_one_does(tmp_path: Path, launcher: str) -> None:
    """Two processes of one micro-batch against one of two: same images, same noise, same log to float32's rounding."""
    images = write_images(tmp_path / "images")
    one = launch([sys.executable, str(TRAIN), *tiny_arguments(images, tmp_path / "one", 2)])
    assert one.returncode == 0, one.stderr
    two = launch([*launcher_command(launcher), str(TRAIN), *tiny_arguments(images, tmp_path / "two", 2)])
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("Finished") == 1
    for single, joint in zip(final_log(tmp_path / "one"), final_log(tmp_path / "two"), strict=True):
        for name, value in single.items():
            if isinstance(value, float):
                torch.testing.assert_close(joint[name], value, rtol=1e-4, atol=1e-6, msg=name, equal_nan=True)

"""What each launcher's environment means, which card a process takes, and how processes end together."""

import math
import sys
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from vdvae_lr import distributed
from vdvae_lr.distributed import Place, World, find_place, first_host, start_world
from vdvae_lr.errors import InputError

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


@pytest.mark.parametrize(("stuck_after_s", "hours"), [(math.inf, 24.0), (3600.0, 1 + 5 / 60)])
def test_how_long_a_process_waits_for_another(
    monkeypatch: pytest.MonkeyPatch, stuck_after_s: float, hours: float
) -> None:
    """Without a limit of its own a reduction outlasts hours of another one's work; with one the watch speaks first."""
    joined: dict[str, Any] = {}
    monkeypatch.setattr(distributed, "find_place", lambda environment: Place(0, 2))
    for name in ("_meet", "TCPStore", "PrefixStore", "PeerWatch"):
        monkeypatch.setattr(distributed, name, MagicMock())
    monkeypatch.setattr(
        distributed.distributed, "init_process_group", lambda backend, **options: joined.update(options)
    )
    assert start_world("cpu", stuck_after_s).watch is not None
    assert joined["timeout"].total_seconds() == pytest.approx(3600 * hours)


def test_sbatch_alone_is_one_process() -> None:
    assert find_place({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "16"}).size == 1


@pytest.mark.parametrize(
    ("nodes", "host"), [("a1", "a1"), ("a[3-5,9]", "a3"), ("b-01,b-02", "b-01"), ("c[007]", "c007")]
)
def test_first_host_of_a_node_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


@pytest.mark.parametrize("missing", TORCHRUN)
def test_half_set_torchrun_is_refused(missing: str) -> None:
    with pytest.raises(InputError, match=f"{missing}; start with torchrun"):
        find_place({name: value for name, value in TORCHRUN.items() if name != missing})


@pytest.mark.parametrize("missing", sorted(SLURM.keys() - {"SLURM_STEP_ID"}))
def test_half_set_slurm_is_refused(missing: str) -> None:
    with pytest.raises(InputError, match=f"lacks {missing}; start with srun"):
        find_place({name: value for name, value in SLURM.items() if name != missing})


def test_a_step_may_be_smaller_than_its_job() -> None:
    assert find_place(SLURM | {"SLURM_STEP_NUM_TASKS": "2"}).size == 2
    assert find_place(SLURM | {"SLURM_STEP_NUM_TASKS": "1"}).size == 1  # an interactive shell in the job


def test_steps_of_a_job_meet_at_ports_of_their_own() -> None:
    assert find_place(SLURM).port != find_place(SLURM | {"SLURM_STEP_ID": "1"}).port


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="sets RANK to 'x', which is no number"):
        find_place(TORCHRUN | {"RANK": "x"})
    with pytest.raises(InputError, match="sets SLURM_PROCID to ''"):
        find_place(SLURM | {"SLURM_PROCID": ""})


def test_an_mpi_that_mpi4py_was_not_built_for_is_refused() -> None:
    """Each of four processes would else take itself for the only one, and all write to one folder."""
    pytest.importorskip("mpi4py")
    with pytest.raises(InputError, match="started 4 processes, but mpi4py sees 1"):
        find_place({"OMPI_COMM_WORLD_SIZE": "4"})


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS", "PMI_SIZE"])
def test_mpiexec_without_mpi4py_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"mpi4py is not installed; pip install 'vdvae_lr\[mpi\]'"):
        find_place({variable: "2"})


def test_more_processes_than_cards_are_refused_before_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the third of three processes on two cards refused at once, the launcher ends the two that wait for it."""
    for name, value in (TORCHRUN | {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "2"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: pytest.fail("it went on to meet"))
    with pytest.raises(InputError, match=r"2 card\(s\) are visible; start at most 2 process\(es\) a machine"):
        start_world("auto")

"""What each launcher's environment means, whole, half, inherited or wrong."""

import socket
import sys

import pytest

from vdvae_lr.errors import InputError
from vdvae_lr.processes.launchers import find_place, first_host

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
    assert find_place(SLURM | {"SLURM_STEP_NUM_TASKS": "12"}).size == 12
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


@pytest.mark.parametrize("alone", [{"MASTER_ADDR": "node0"}, {"MASTER_PORT": "1"}, {"WORLD_SIZE": "1"}])
def test_a_leftover_that_says_nothing_is_one_process(alone: dict[str, str]) -> None:
    assert find_place(alone).size == 1


def test_a_size_without_a_number_is_refused() -> None:
    """Each of four such processes would take itself for the only one."""
    with pytest.raises(InputError, match=r"sets WORLD_SIZE but not .*RANK; start with torchrun, or unset WORLD_SIZE"):
        find_place({"WORLD_SIZE": "4"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"RANK": "4"},
        {"RANK": "-1"},
        {"WORLD_SIZE": "0"},
        {"LOCAL_RANK": "-1"},
        {"MASTER_PORT": "0"},
        {"MASTER_PORT": "65536"},
        {"MASTER_ADDR": ""},
    ],
)
def test_what_no_launcher_says_is_refused_with_its_remedy(wrong: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"the environment says .* unset RANK, WORLD_SIZE and LOCAL_RANK"):
        find_place(TORCHRUN | wrong)
    with pytest.raises(InputError, match=r"process 16 of 16.*unset SLURM_STEP_ID\."):
        find_place(SLURM | {"SLURM_PROCID": "16"})


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_one_process_of_mpiexec_needs_no_mpi(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """Also in a shell whose mpiexec has ended: MPI would crash there."""
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    place = find_place({variable: "1"})
    assert (place.size, place.relayed) == (1, True)


def test_variables_of_an_mpiexec_that_ended_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)  # not reached while nobody listens
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        uri = f"prterun-host-1@0.0;tcp4://127.0.0.1:{server.getsockname()[1]}"
        environment = {"OMPI_COMM_WORLD_SIZE": "2", "PMIX_SERVER_URI41": uri}
        with pytest.raises(InputError, match=r"an mpiexec that has ended; .* unset OMPI_COMM_WORLD_SIZE"):
            find_place(environment)
        server.listen()
        with pytest.raises(InputError, match="mpi4py is not installed"):
            find_place(environment)


def test_the_remedy_undoes_what_srun_set() -> None:
    step = SLURM | {"PMI_SIZE": "16"}
    words = find_place(step).remedy
    left = {name: value for name, value in step.items() if name not in words.replace(",", "").split()}
    assert find_place(left).size == 1

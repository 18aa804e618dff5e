"""The script slurm.sh: what it hands to srun, when it puts its job back, and a real run through a stand-in srun."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launching import CHECKOUT, free_job, log_of, train_command
from stand_ins import ended, environment, recording, run_script, start, wait_until, write_program
from training_runs import write_images

SRUN = """
import os, subprocess, sys
words = sys.argv[sys.argv.index("--wait=60") + 1 :]
node = {"SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_TASKS": "2"}
ranks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
tasks = [subprocess.Popen(words, env=os.environ | node | rank) for rank in ranks]
sys.exit(max(task.wait() for task in tasks))
"""
"""Starts two tasks on this machine, each with the variables that srun gives it, and ends with the highest code."""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A srun and a scontrol that note what they are asked; srun ends with $CODE."""
    note = f"env >{tmp_path}/environment; exit ${{CODE-0}}"
    recording(tmp_path / "bin" / "srun", tmp_path / "srun", note)
    recording(tmp_path / "bin" / "scontrol", tmp_path / "scontrol")
    return tmp_path / "bin"


def submit(programs: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run_script("slurm.sh", *words, programs=programs, SLURM_JOB_ID="42", **variables)


def asked(programs: Path, program: str) -> list[str]:
    record = programs.parent / program
    return record.read_text().splitlines() if record.exists() else []


@pytest.mark.parametrize(("code", "requeued"), [(0, []), (75, ["requeue", "42"]), (2, []), (69, [])])
def test_only_a_run_that_was_told_to_stop_goes_back_into_the_queue(
    programs: Path, code: int, requeued: list[str]
) -> None:
    assert submit(programs, CODE=str(code)).returncode == code
    assert asked(programs, "scontrol") == requeued


def test_words_reach_train_py_as_they_are(programs: Path) -> None:
    submit(programs, "--desc", "two words", "--dec_blocks", "", RUNS="/my runs")
    expected = ["--wait=60", "python", "train.py", "--save_dir", "/my runs", "--desc", "two words", "--dec_blocks", ""]
    assert asked(programs, "srun") == expected


def test_variables_become_words(programs: Path) -> None:
    submit(programs, HPS="ffhq256", ALPHA_T="1.0", DATA="/data", RUNS="/runs", PYTHON="/venv/bin/python")
    expected = "--wait=60 /venv/bin/python train.py --hps ffhq256 --alpha_T 1.0 --data_root /data --save_dir /runs"
    assert asked(programs, "srun") == expected.split()


def test_tasks_get_the_cores_that_the_job_asked_for(programs: Path) -> None:
    """Since 22.05 srun does not take them from --cpus-per-task of sbatch."""
    submit(programs, SLURM_CPUS_PER_TASK="8")
    assert {"SRUN_CPUS_PER_TASK=8", "HF_HUB_OFFLINE=1", "OMP_NUM_THREADS=1"} <= set(asked(programs, "environment"))


def contained(programs: Path, container: str, **variables: str) -> subprocess.CompletedProcess[str]:
    folders = {name: str(programs.parent / name.lower()) for name in ("RUNS", "HF_HOME", "DATA")}
    Path(folders["DATA"]).mkdir()
    return submit(programs, "--desc", "a b", CONTAINER=container, **folders | {"IMAGE": "/i.sif"} | variables)


def test_pyxis_sees_data_runs_and_weights(programs: Path) -> None:
    assert contained(programs, "pyxis").returncode == 0
    words, folder = asked(programs, "srun"), programs.parent
    assert words[: words.index("python")] == [
        "--wait=60",
        "--container-image=/i.sif",
        "--container-mounts=" + ",".join(f"{folder}/{name}:{folder}/{name}" for name in ("data", "hf_home", "runs")),
        "--container-workdir=/opt/vdvae_lr",
        "--no-container-mount-home",
        "--container-env=HF_HOME,HF_HUB_OFFLINE,OMP_NUM_THREADS",
    ]
    assert words[words.index("python") :] == [
        *("python", "train.py", "--data_root", f"{folder}/data", "--save_dir", f"{folder}/runs", "--desc", "a b")
    ]


def test_apptainer_sees_data_runs_and_weights(programs: Path) -> None:
    assert contained(programs, "apptainer").returncode == 0
    words, folder = asked(programs, "srun"), programs.parent
    mounts = ",".join(f"{folder}/{name}:{folder}/{name}" for name in ("data", "hf_home", "runs"))
    assert words[:9] == ["--wait=60", "apptainer", "exec", "--nv", "--bind", mounts, "--pwd", "/opt/vdvae_lr", "/i.sif"]
    assert words[9:11] == ["bash", "-c"]
    assert words[-7:] == ["train.py", "--data_root", f"{folder}/data", "--save_dir", f"{folder}/runs", "--desc", "a b"]


def test_a_signal_that_apptainer_passes_on_does_not_come_twice(programs: Path, tmp_path: Path) -> None:
    """SLURM signals the run itself as well; the shell between apptainer and the run must neither pass it on nor die."""
    contained(programs, "apptainer")
    words = asked(programs, "srun")
    shell = words[words.index("bash") : words.index("python")]
    ready = tmp_path / "ready"
    run = write_program(programs / "run", f"trap 'exit 99' USR1\ntouch {ready}\nsleep 1\nexit 75\n")
    process = start(*shell, str(run), programs=programs)
    wait_until(ready.exists, "the run starts")
    assert ended(process, signal.SIGUSR1) == 75


@pytest.mark.parametrize(
    ("container", "variables", "why"),
    [
        ("docker", {}, "CONTAINER is 'docker'; it is empty, pyxis or apptainer."),
        ("pyxis", {"IMAGE": ""}, "CONTAINER is pyxis, but IMAGE names no image."),
        ("apptainer", {"RUNS": "runs"}, "'runs' must be an absolute path"),
        ("pyxis", {"DATA": "/nowhere/at/all"}, "there is no folder '/nowhere/at/all'"),
    ],
)
def test_what_a_container_could_not_use_is_refused(
    programs: Path, container: str, variables: dict[str, str], why: str
) -> None:
    result = contained(programs, container, **variables)
    assert result.returncode == 2
    assert why in result.stderr
    assert asked(programs, "srun") == []


@pytest.mark.slow
def test_two_tasks_train_together(tmp_path: Path) -> None:
    srun = tmp_path / "srun.py"
    srun.write_text(SRUN)
    write_program(tmp_path / "bin" / "srun", f'exec {sys.executable} {srun} "$@"\n')
    words = train_command(write_images(tmp_path / "images"), tmp_path / "runs", iters=2, iters_per_eval=9)[1:]
    job = {"SLURM_JOB_ID": str(free_job()), "SLURM_NTASKS": "2", "PYTHON": sys.executable}
    variables = job | {"RUNS": str(tmp_path / "runs")}
    script = CHECKOUT / "scripts" / "cluster" / "slurm.sh"
    # SLURM runs a copy of the script, in the folder that sbatch was called in.
    copied = write_program(tmp_path / "spool" / "slurm_script", script.read_text())
    result = subprocess.run(
        [copied, *words], env=environment(tmp_path / "bin", **variables), cwd=CHECKOUT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Finished") == 1
    assert log_of(tmp_path / "runs")[-1]["iteration"] == 2

"""The Dockerfile passes its linter and holds to what the linter does not know; nothing that is ours alone gets in."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from stand_ins import environment, write_program

from vdvae_lr import __version__
from vdvae_lr.cli.main import main
from vdvae_lr.files.bundled import CHECKOUT_ROOT

DOCKERFILE = CHECKOUT_ROOT / "Dockerfile"
CARDS = "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-1)"


@dataclass
class Stage:
    """A part of the Dockerfile from FROM on, with all that it inherits from the stage that it is made from."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        return [value for instruction, value in self.instructions if instruction == name]


def read_stages() -> dict[str, Stage]:
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    stages: dict[str, Stage] = {}
    stage = Stage("")
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, value = line.partition(" ")
        if name == "FROM":
            base, _, own = value.partition(" AS ")
            stage = stages[own] = Stage(base, list(stages[base].instructions) if base in stages else [])
        elif line:
            stage.instructions.append((name, value))
    return stages


STAGES = read_stages()
TARGETS = ("cpu", "gpu")


def health_check(target: str) -> list[str]:
    (check,) = STAGES[target].values("HEALTHCHECK")
    return [str(word) for word in json.loads(check.partition("CMD ")[2])]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "--failure-threshold", "style", DOCKERFILE], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_bases_are_pinned() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert re.fullmatch(r"debian:bookworm-20\d{6}-slim(@sha256:[0-9a-f]{64})?", base)
    assert {stage.base for stage in STAGES.values()} - STAGES.keys() == {"${BASE}"}


def test_the_cards_image_is_what_is_built_without_a_target() -> None:
    assert list(STAGES)[-1] == "gpu"


@pytest.mark.parametrize("target", TARGETS)
def test_image_is_not_roots_and_starts_train_py(target: str) -> None:
    stage = STAGES[target]
    assert stage.values("USER") == ["1000:1000"]
    assert json.loads(stage.values("ENTRYPOINT")[-1]) == ["python", "train.py"]
    assert stage.values("WORKDIR")[-1] == "/opt/vdvae_lr"


@pytest.mark.parametrize("target", TARGETS)
def test_image_says_what_it_is(target: str) -> None:
    stage = STAGES[target]
    names = re.findall(r"org\.opencontainers\.image\.([\w.]+)=", stage.values("LABEL")[0])
    assert {"title", "description", "version", "revision", "licenses"} <= set(names)
    assert f"VERSION={__version__}" in stage.values("ARG")


@pytest.mark.parametrize("target", TARGETS)
def test_image_is_installed_by_the_script_of_the_makefile(target: str) -> None:
    install = STAGES[f"install-{target}"]
    assert install.values("RUN")[-1] == "scripts/install.sh"
    assert "VENV=/opt/venv EXTRAS=${EXTRAS}" in install.values("ENV")[0]
    assert "EXTRAS=mpi" in install.values("ARG")
    torch = re.search(r"^TORCH \?= (torch==[\d.]+)$", (CHECKOUT_ROOT / "Makefile").read_text(), re.MULTILINE)
    assert torch is not None
    assert {"gpu": f"TORCH={torch[1]}", "cpu": f"TORCH={torch[1]}+cpu"}[target] in install.values("ARG")
    assert STAGES[target].values("COPY")[-1] == f"--from=install-{target} /opt/venv /opt/venv"
    assert STAGES[target].values("ENV")[0].startswith("PATH=/opt/venv/bin:")


def test_package_lists_are_not_kept_and_nothing_is_fetched_unseen() -> None:
    for name, stage in STAGES.items():
        assert stage.values("ADD") == [], name
        for run in stage.values("RUN"):
            assert "apt-get" not in run or "rm -rf /var/lib/apt/lists/*" in run
            assert not re.search(r"\b(curl|wget|git clone)\b", run)
        assert "pipefail" in stage.values("SHELL")[0]


def test_there_are_no_secrets() -> None:
    assert not re.search(r"(?i)token|password|secret|api_?key", DOCKERFILE.read_text())


def test_health_of_the_cpu_image(capsys: pytest.CaptureFixture[str]) -> None:
    program, *words = health_check("cpu")
    assert program == "vdvae-lr"
    assert main(words) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("nvidia_smi", "healthy"),
    [
        (f"echo '{CARDS}'", True),
        ("echo 'No devices were found'", False),
        (f"echo '{CARDS}'; echo 'Unable to determine the device handle: GPU is lost.'; exit 15", False),
    ],
)
def test_health_of_the_cards_image(tmp_path: Path, nvidia_smi: str, healthy: bool) -> None:
    write_program(tmp_path / "nvidia-smi", nvidia_smi)
    result = subprocess.run(health_check("gpu"), env=environment(tmp_path), capture_output=True)
    assert (result.returncode == 0) == healthy


def test_nothing_gets_in_but_what_is_named() -> None:
    """No data, no weights, no runs: everything is left out first, and then little let in."""
    lines = (CHECKOUT_ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    prepare = {str(path.relative_to(CHECKOUT_ROOT)) for path in (CHECKOUT_ROOT / "data").glob("*/prepare.py")}
    code = {
        "LICENSE",
        "hps/*.toml",
        "hps/shallow/*.toml",
        "pyproject.toml",
        "scripts",
        "setup.py",
        "train.py",
        "vdvae_lr",
    }
    assert let_in == code | prepare
    assert {"**/.*", "**/__pycache__"} == set(rules[1:]) - {f"!{name}" for name in let_in}


def test_everything_that_is_copied_is_let_in() -> None:
    let_in = (CHECKOUT_ROOT / ".dockerignore").read_text().splitlines()
    copied = {copy for stage in STAGES.values() for copy in stage.values("COPY") if not copy.startswith("--from=")}
    sources = {source for copy in copied for source in copy.split()[:-1]} - {"."}
    assert "setup.py" in sources
    assert {source for source in sources if f"!{source.split('/')[0]}" not in let_in} == set()

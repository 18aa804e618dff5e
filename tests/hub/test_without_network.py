"""Where the network is out of reach, the sentence ends with the command that fetches the same weights elsewhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_client import client_at
from loopback_files import LoopbackFiles
from loopback_hub import LoopbackHub
from refusals import refused

from vdvae_lr import VDVAE
from vdvae_lr.cli.main import main
from vdvae_lr.errors import InputError
from vdvae_lr.hub.sources import WeightSettings, find_weights
from vdvae_lr.training.build import find_start_weights
from vdvae_lr.training.settings import RunSettings, Settings

NOWHERE = "http://127.0.0.1:1"
ELSEWHERE = "or run this on a machine with network and the same HF_HOME: vdvae-lr pull "


@pytest.fixture(params=["offline", "no network"])
def cause(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What a refusal says of it: forbidden, or out of reach."""
    monkeypatch.setattr("vdvae_lr.hub.vdvae.published.SERVER", NOWHERE)
    with client_at(NOWHERE, tmp_path / "home"), monkeypatch.context() as patch:  # undone in this order
        if request.param == "offline":
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield "HF_HUB_OFFLINE" if request.param == "offline" else "cannot be reached"


@pytest.mark.parametrize("ema", [True, False])
@pytest.mark.parametrize(
    ("name", "settings", "command"),
    [
        ("ffhq256", {}, "ffhq256"),
        ("ffhq256", {"weights_mirror": "tester/mirror"}, "ffhq256 --weights_mirror tester/mirror"),
        ("tester/model", {}, "tester/model"),
        ("tester/model", {"revision": "v1", "lr_repository": "tester/other"}, "tester/model --revision v1"),
        ("lrvdvae-a", {"lr_repository": "tester/lr-{name}"}, "lrvdvae-a --lr_repository 'tester/lr-{name}'"),
        (f"{NOWHERE}/a.th", {}, f"{NOWHERE}/a.th"),
        ("http://me:secret@127.0.0.1:1/a.th?key=secret", {}, "ADDRESS"),
    ],
    ids=range(7),
)
def test_weights_by_every_kind_of_name(
    cause: str, name: str, settings: dict[str, str], command: str, ema: bool
) -> None:
    with refused("", cause, ELSEWHERE) as caught:
        find_weights(name, WeightSettings(**settings), ema=ema)
    expected = command if ema else command.replace("ffhq256", "ffhq256 --everything")
    assert str(caught.value).endswith(f"{ELSEWHERE}{expected}")
    assert "secret" not in str(caught.value)


def test_the_optimisers_state(cause: str) -> None:
    settings = Settings(run=RunSettings(restore_path="fashion", restore_optimizer_path="ffhq256"))
    with refused("ffhq256-iter-1700000-opt.th", cause, f"{ELSEWHERE}ffhq256 --everything"):
        find_start_weights(settings)


def test_on_the_command_line(cause: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "tester/model", "--count", "1"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: ") and cause in message
    assert message.endswith(f"{ELSEWHERE}tester/model")


def test_files_that_may_not_be_fetched(tmp_path: Path) -> None:
    with client_at(NOWHERE, tmp_path / "home"):
        for name in ("ffhq256", "tester/model", f"{NOWHERE}/a.th"):
            with refused("", "local_files_only", f"{ELSEWHERE}{name}"):
                VDVAE.from_pretrained(name, local_files_only=True)


def test_a_server_that_answers_is_no_missing_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackHub() as hub, LoopbackFiles({}) as site, hub.client(tmp_path / "home"):
        monkeypatch.setattr("vdvae_lr.hub.vdvae.published.SERVER", site.address)
        for name in ("ffhq256", f"{site.address}/a.th", "tester/absent"):
            with pytest.raises(InputError) as caught:
                find_weights(name)
            assert "vdvae-lr pull" not in str(caught.value)

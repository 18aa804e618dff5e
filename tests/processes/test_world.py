"""Which card a process takes, how long processes wait for each other, and how they end together."""

import math
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from vdvae_lr.errors import InputError
from vdvae_lr.processes import world as distributed
from vdvae_lr.processes.launchers import Place
from vdvae_lr.processes.world import World, start_world

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "1234"}


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
    place = Place(rank=3, size=4, local_rank=3, port=1)
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
    monkeypatch.setattr(distributed, "find_place", lambda environment: Place(0, 2, port=1))
    for name in ("connected", "joined_store", "wait_for_all", "PrefixStore", "PeerWatch"):
        monkeypatch.setattr(distributed, name, MagicMock())
    monkeypatch.setattr(
        distributed.distributed, "init_process_group", lambda backend, **options: joined.update(options)
    )
    assert start_world("cpu", stuck_after_s).watch is not None
    assert joined["timeout"].total_seconds() == pytest.approx(3600 * hours)


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

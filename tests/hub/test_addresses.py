"""Weights at an address: when the server is asked."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_client import client_at
from loopback_files import LoopbackFiles
from refusals import refused
from small_config import SMALL

from vdvae_lr.files.hub_client import HubAccess
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.sources import find_weights


@pytest.fixture
def site(tmp_path: Path) -> Iterator[LoopbackFiles]:
    """A file server with one folder of weights, and a cold cache."""
    VDVAE(SMALL).save_pretrained(tmp_path / "ours")
    files = {f"/ours/{name}": (tmp_path / "ours" / name).read_bytes() for name in ("config.json", "model.safetensors")}
    with LoopbackFiles(files) as site, client_at(site.address, tmp_path / "home"):
        yield site


def test_an_address_is_asked_again_or_not_at_all_where_the_caller_wants_that(site: LoopbackFiles) -> None:
    address = f"{site.address}/ours/model.safetensors"
    with refused("model.safetensors", "local_files_only forbids fetching", "leave that out"):
        find_weights(address, access=HubAccess(local_files_only=True))
    assert site.requests == []
    path = find_weights(address).path
    assert find_weights(address, access=HubAccess(local_files_only=True)).path == path
    asked = len(site.requests)
    find_weights(address, access=HubAccess(force_download=True))
    assert len(site.requests) == 2 * asked

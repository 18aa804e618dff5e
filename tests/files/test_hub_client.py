"""Files of a Hub repository: right, or refused with one sentence and gone from the cache, whatever the Hub does."""

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from loopback_client import client_at
from loopback_faults import Fault
from loopback_hub import LoopbackHub
from refusals import refused
from started_processes import Start, run_together

from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.files.hub_client import HubAccess, asset_path, optional_repository_file, repository_file

CHUNK = 1024  # bytes that the client writes, and goes on after, at once
LARGE, SMALL = "model.safetensors", "config.json"
FILES = {LARGE: random.Random(0).randbytes(20 * CHUNK + 7), SMALL: b"{}\n" * 700, "figures/a.png": b"picture"}
NAME = "tester/model"
REPOSITORY = f"repository {NAME}"
LOGIN = "'hf auth login'"
LATER = "try again later"
ANONYMOUS = HubAccess()
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.put(NAME, FILES)
        yield hub


@pytest.fixture(autouse=True)
def naps(hub: LoopbackHub, tmp_path: Path) -> Iterator[list[float]]:
    with hub.client(tmp_path / "home", chunk=CHUNK) as naps:
        yield naps


def get(name: str = LARGE, access: HubAccess = ANONYMOUS) -> bytes:
    return repository_file(NAME, name, access).read_bytes()


def cached(home: Path) -> list[bytes]:
    """What the cache holds of content, whole or in part."""
    return [path.read_bytes() for path in home.glob("home/hub/models--*/blobs/*")]


def asked(hub: LoopbackHub) -> list[str | None]:
    return [request.range for request in hub.requests if request.method == "GET" and "resolve" in request.path]


@pytest.mark.parametrize("name", FILES)
def test_a_file_arrives_and_is_fetched_once(hub: LoopbackHub, name: str) -> None:
    assert get(name) == get(name) == FILES[name]
    assert asked(hub) == [None]


@pytest.mark.parametrize("after", [tenth / 10 for tenth in range(10)])
def test_one_cut_anywhere_is_gone_on_from(hub: LoopbackHub, after: float) -> None:
    hub.faults.append(Fault("cut", LARGE, after=after, times=1))
    assert get() == FILES[LARGE]
    arrived = int(after * len(FILES[LARGE])) // CHUNK * CHUNK
    assert asked(hub) == [None, f"bytes={arrived}-" if arrived else None]


@pytest.mark.parametrize("after", [tenth / 10 for tenth in range(10)])
@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_cuts_without_end_are_told_and_leave_nothing(hub: LoopbackHub, tmp_path: Path, kind: Any, after: float) -> None:
    hub.faults.append(Fault(kind, LARGE, after=after))
    with refused(REPOSITORY, "cannot be reached", LATER):
        get()
    assert [content for content in cached(tmp_path) if content not in FILES.values()] == []
    hub.faults.clear()
    assert get() == FILES[LARGE]


@pytest.mark.parametrize("change", [-10, 10])
@pytest.mark.parametrize("name", [LARGE, SMALL])
def test_another_length_than_listed_is_refused(hub: LoopbackHub, tmp_path: Path, name: str, change: int) -> None:
    hub.faults.append(Fault("length", name, change=change))
    with refused(REPOSITORY, "announced length", LATER):
        get(name)
    assert cached(tmp_path) == []
    hub.faults.clear()
    assert get(name) == FILES[name]


@pytest.mark.parametrize("name", [LARGE, SMALL])
def test_other_content_than_listed_is_refused_and_removed(hub: LoopbackHub, tmp_path: Path, name: str) -> None:
    hub.faults.append(Fault("content", name, times=1))
    with refused(f"{name} of {REPOSITORY}", "another content than the repository lists", "run the same command again"):
        get(name)
    assert [content for content in cached(tmp_path) if content not in FILES.values()] == []
    assert get(name) == FILES[name]


def test_a_file_of_the_cache_that_went_bad_is_refused_and_fetched_anew(hub: LoopbackHub) -> None:
    path = repository_file(NAME, LARGE, ANONYMOUS)
    path.resolve().write_bytes(b"bad")
    with refused(f"{LARGE} of {REPOSITORY}", "removed from the cache", "run the same command again"):
        get()
    assert get() == FILES[LARGE]


@pytest.mark.parametrize(
    ("status", "cause", "remedy"),
    [
        (401, "wants a login", LOGIN),
        (403, "forbids", LOGIN),
        (429, "too many requests", LATER),
        (500, "server failed", LATER),
        (503, "busy", LATER),
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_status_that_stays_is_told(hub: LoopbackHub, method: str, status: int, cause: str, remedy: str) -> None:
    hub.faults.append(Fault("status", method=method, status=status))
    with refused(REPOSITORY, f"answers {status} (", remedy) as caught:
        get()
    assert cause in str(caught.value)
    hub.faults.clear()
    assert get() == FILES[LARGE]


def test_a_hub_that_wants_a_pause_gets_it(hub: LoopbackHub, naps: list[float]) -> None:
    hub.faults.append(Fault("status", LARGE, status=429, retry_after=7, times=2))
    assert get() == FILES[LARGE]
    assert naps == [8, 8]  # the client adds a second


@pytest.mark.parametrize("fault", [Fault("silent", method="HEAD"), Fault("silent"), Fault("hangup", method="HEAD")])
def test_a_hub_that_says_nothing_is_given_up(hub: LoopbackHub, tmp_path: Path, fault: Fault) -> None:
    hub.faults.append(Fault(fault.kind, method=fault.method))
    with hub.client(tmp_path / "home", timeout=0.05), refused(REPOSITORY, "cannot be reached", LATER):
        get()
    assert hub.faults[0].struck <= 8
    hub.faults.clear()
    assert get() == FILES[LARGE]


def test_without_network_the_cache_is_enough(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get() == FILES[LARGE]
    hub.requests.clear()
    assert get(access=HubAccess(local_files_only=True)) == FILES[LARGE]
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert get() == FILES[LARGE]
    with client_at(NOWHERE, tmp_path / "home"):
        assert get() == FILES[LARGE]
    assert hub.requests == []


def test_with_a_hub_in_trouble_the_cache_is_enough(hub: LoopbackHub) -> None:
    assert get() == FILES[LARGE]
    for status in (429, 500, 503):
        hub.faults[:] = [Fault("status", method="HEAD", status=status)]
        assert get() == FILES[LARGE]


def test_without_network_and_cache_it_is_told_why(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, remedy = f"{LARGE} of {REPOSITORY} is not in the cache", "allow it"
    with client_at(NOWHERE, tmp_path / "home"), refused(missing, "the Hub cannot be reached (", LATER):
        get()
    with refused(missing, "local_files_only", remedy):
        get(access=HubAccess(local_files_only=True))
    with monkeypatch.context() as patch, refused(missing, "HF_HUB_OFFLINE", remedy):
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        get()
    assert hub.requests == []
    assert get() == FILES[LARGE]


def test_a_private_repository_is_for_who_may_see_it(hub: LoopbackHub) -> None:
    hub.repositories[NAME].visibility = "private"
    for token in (None, False, hub.stranger):
        with refused(f"there is no {REPOSITORY}", "for this login", LOGIN):
            get(access=HubAccess(token=token))
    assert get(access=HubAccess(token=hub.token)) == FILES[LARGE]


def test_the_login_of_this_machine_is_used(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.repositories[NAME].visibility = "private"
    with hub.client(tmp_path / "home", token=hub.token):
        assert get() == FILES[LARGE]


def test_a_gated_repository_says_where_to_ask(hub: LoopbackHub) -> None:
    hub.repositories[NAME].visibility = "gated"
    for token in (None, hub.stranger):
        with refused(f"{REPOSITORY} is gated", "ask for access on its page", LOGIN):
            get(access=HubAccess(token=token))


@pytest.mark.parametrize("token", [True, "", "hf_secret\n", "hf_sec\x00ret", "hf_secret\u00fc"])
def test_a_token_that_cannot_be_one_is_told_without_repeating_it(token: str | bool) -> None:
    with refused(REPOSITORY, "no token has", LOGIN) as caught:
        get(access=HubAccess(token=token))
    assert "hf_" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_token_that_nobody_has_is_told(hub: LoopbackHub) -> None:
    with refused(REPOSITORY, "answers 401 (it wants a login)", LOGIN):
        get(access=HubAccess(token="hf_nobody"))


def test_what_is_not_there_is_named(hub: LoopbackHub) -> None:
    with refused(f"{REPOSITORY} has no absent.th", "", "check what it is called there"):
        get("absent.th")
    hub.put("tester/other", {"pytorch_model.bin": b"pickle"})
    for name in (SMALL, LARGE):
        with refused(f"repository tester/other has no {name}", "may run code", "only weights that this program wrote"):
            repository_file("tester/other", name, ANONYMOUS)
    with refused("there is no repository tester/absent", "for this login", "check its name"):
        repository_file("tester/absent", SMALL, ANONYMOUS)
    for name in ("a/b/c", "a--b/c", "a/b\nc", "", "a/" + 500 * "b"):
        with refused("cannot be a repository's name", "", "give OWNER/NAME"):
            repository_file(name, SMALL, ANONYMOUS)
    with refused(f"{REPOSITORY} has no revision 'absent'", "", "branches, tags or commits"):
        get(access=HubAccess(revision="absent"))


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/tmp/outside", ".."])
def test_a_name_that_leads_out_of_the_repository_is_refused(hub: LoopbackHub, tmp_path: Path, name: str) -> None:
    hub.put(NAME, {name: b"outside"})
    with refused(REPOSITORY, "cannot be used like this", "mend"):
        get(name)
    assert list(tmp_path.rglob("*outside*")) == []
    assert get() == FILES[LARGE]


def test_what_a_repository_need_not_have_may_be_missing(hub: LoopbackHub) -> None:
    path = optional_repository_file(NAME, SMALL, ANONYMOUS)
    assert path is not None
    assert path.read_bytes() == FILES[SMALL]
    assert optional_repository_file(NAME, "README.md", ANONYMOUS) is None
    hub.repositories[NAME].visibility = "gated"
    with refused(f"{REPOSITORY} is gated", "ask for access", LOGIN):
        optional_repository_file(NAME, LARGE, ANONYMOUS)


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: LoopbackHub) -> None:
    first = hub.repositories[NAME].refs["main"]
    second = hub.put(NAME, {SMALL: b"second"})
    hub.put(NAME, {SMALL: b"third"}, revision="some/branch")
    hub.repositories[NAME].refs["v1"] = first
    wanted = {None: b"second", "main": b"second", second: b"second", "some/branch": b"third"}
    wanted |= dict.fromkeys(("v1", first), FILES[SMALL])
    assert {revision: get(SMALL, HubAccess(revision=revision)) for revision in wanted} == wanted


def test_the_branch_of_today_is_fetched_and_not_that_of_yesterday(hub: LoopbackHub) -> None:
    assert get(SMALL) == FILES[SMALL]
    hub.put(NAME, {SMALL: b"new"})
    assert get(SMALL) == b"new"


def test_a_cache_elsewhere_and_a_forced_download(hub: LoopbackHub, tmp_path: Path) -> None:
    assert repository_file(NAME, SMALL, HubAccess(cache_dir=tmp_path / "mine")).is_relative_to(tmp_path / "mine")
    assert cached(tmp_path) == []
    get(SMALL)
    hub.requests.clear()
    assert get(SMALL, HubAccess(force_download=True)) == FILES[SMALL]
    assert asked(hub) == [None]
    for words, fault in (
        ("500", Fault("status", method="HEAD", status=500)),
        ("cannot be reached", Fault("hangup", method="HEAD")),
    ):
        hub.faults[:] = [fault]
        with refused(REPOSITORY, words, LATER):
            get(SMALL, HubAccess(force_download=True))
    with refused(REPOSITORY, "local_files_only", "force_download"):
        get(SMALL, HubAccess(force_download=True, local_files_only=True))
    hub.faults.clear()
    assert get(SMALL) == FILES[SMALL]


def test_the_cache_of_other_files_is_where_the_hub_keeps_its_own(tmp_path: Path) -> None:
    path = asset_path("published/a.th", HubAccess())
    assert path.is_relative_to(tmp_path / "home")
    assert path.name == "a.th"
    assert path.parent.is_dir()


def test_a_cache_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "home" / "assets").parent.mkdir(exist_ok=True)
    (tmp_path / "home" / "assets").write_text("in the way")
    with refused("the Hugging Face cache", str(tmp_path / "home" / "assets"), "HF_HOME"):
        asset_path("published/a.th", HubAccess())


def test_a_full_disk_is_named_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, refused(REPOSITORY, "No space left", "free space or choose another folder"):
        patch.setattr("huggingface_hub.file_download._chmod_and_move", full)
        get()
    assert cached(tmp_path) == []
    assert get() == FILES[LARGE]


PROGRAM = f"""
import sys
from pathlib import Path
from loopback_client import client_at
from vdvae_lr.files.hub_client import HubAccess, repository_file

with client_at(sys.argv[1], Path(sys.argv[2]), timeout=60):
    print(repository_file("{NAME}", "{LARGE}", HubAccess()).stat().st_size)
"""


def test_of_two_processes_one_downloads_and_the_other_waits(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.faults.append(Fault("stall", LARGE, times=1))  # until the other one has come as far as it can
    variables = {"PYTHONPATH": os.pathsep.join(str(CHECKOUT_ROOT / part) for part in ("tests/support", "."))}
    start = Start([sys.executable, "-c", PROGRAM, hub.endpoint, str(tmp_path / "both")], variables)
    release = threading.Thread(target=lambda: (wait_until(lambda: heads(hub) == 2), time.sleep(0.3), hub.release()))
    release.start()
    ended = run_together(tmp_path, [start, start])
    release.join()
    assert [(process.code, process.output) for process in ended] == [(0, f"{len(FILES[LARGE])}\n")] * 2, ended
    assert asked(hub)[0] is None
    assert len(asked(hub)) == 2  # the second one is the first process's, after the cut
    assert len(set(hub.requests)) == 2 + (asked(hub)[1] is not None)


def heads(hub: LoopbackHub) -> int:
    return sum(request.method == "HEAD" for request in hub.requests)


def wait_until(happened: Callable[[], bool]) -> None:
    for _ in range(6000):
        if happened():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within a minute")

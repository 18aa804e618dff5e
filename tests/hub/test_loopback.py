"""The Hub that other tests stand on: the real huggingface_hub finds in it what it expects, also where it fails."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_client import CHUNK, LARGE_UPLOAD_WARNING
from loopback_faults import Fault
from loopback_hub import LoopbackHub

hf = pytest.importorskip("huggingface_hub")
httpx2 = pytest.importorskip("httpx2")
errors = pytest.importorskip("huggingface_hub.errors")

WEIGHTS = bytes(range(256)) * 2000
CARD = b"---\nlicense: mit\n---\n# A model\n"
FILES = {"README.md": CARD, "config.json": b"{}", "model.safetensors": WEIGHTS, "other/log.txt": b"text"}
NAME = "tester/model"


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def naps(hub: LoopbackHub, tmp_path: Path) -> Iterator[list[float]]:
    with hub.client(tmp_path / "home") as naps:
        yield naps


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read_folder(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept(home: Path) -> set[int]:
    """The sizes of what a download left in the cache, whole or in part."""
    return {path.stat().st_size for path in home.glob("hub/*/blobs/*")}


def ranges(server: LoopbackHub) -> list[str | None]:
    return [request.range for request in server.requests if request.method == "GET"]


def wait_until_struck(fault: Fault) -> None:
    for _ in range(1000):
        if fault.struck:
            return
        time.sleep(0.005)
    raise AssertionError(f"{fault} did not strike")


def values_of_constants() -> dict[str, object]:
    return {name: value for name, value in vars(hf.constants).items() if name.isupper()}


def download(name: str = "model.safetensors", **options: object) -> bytes:
    return Path(hf.hf_hub_download(NAME, name, **options)).read_bytes()


@pytest.mark.filterwarnings(LARGE_UPLOAD_WARNING)
def test_what_is_uploaded_comes_back(hub: LoopbackHub, naps: list[float], tmp_path: Path) -> None:
    api = hf.HfApi(token=hub.token)
    assert api.create_repo(NAME).repo_id == NAME
    folder = write_folder(tmp_path / "folder", FILES)
    commit = api.upload_folder(repo_id=NAME, folder_path=folder, commit_message="first").oid
    assert hub.files(NAME) == hub.files(NAME, commit) == FILES
    assert [request.method for request in hub.requests].count("PUT") == 1  # the large file; the rest is in the commit
    assert download() == WEIGHTS
    assert read_folder(Path(hf.snapshot_download(NAME))) == FILES
    assert sorted(hf.list_repo_files(NAME)) == sorted(FILES)
    info = hf.model_info(NAME, files_metadata=True)
    assert info.sha == commit
    assert {file.rfilename: file.size for file in info.siblings} == {name: len(FILES[name]) for name in FILES}
    assert api.upload_folder(repo_id=NAME, folder_path=folder).oid == commit  # nothing changed: no new commit


@pytest.mark.filterwarnings(LARGE_UPLOAD_WARNING)
def test_an_upload_replaces_removes_and_does_not_send_twice(
    hub: LoopbackHub, naps: list[float], tmp_path: Path
) -> None:
    first = hub.put(NAME, {"old.txt": b"old", "config.json": b"{}"})
    folder = write_folder(tmp_path / "folder", {"a.safetensors": WEIGHTS, "b.th": WEIGHTS[::-1], "config.json": b"[]"})
    api = hf.HfApi(token=hub.token)
    api.upload_folder(repo_id=NAME, folder_path=folder, delete_patterns="*.txt")
    assert hub.files(NAME) == read_folder(folder)
    (folder / "c.th").write_bytes(WEIGHTS)
    api.upload_folder(repo_id=NAME, folder_path=folder)
    assert [request.method for request in hub.requests].count("PUT") == 2
    with pytest.raises(errors.HfHubHTTPError, match="A commit has happened since"):
        api.upload_folder(repo_id=NAME, folder_path=folder, path_in_repo="again", parent_commit=first)


def test_a_repository_is_made_once_and_by_its_owner(hub: LoopbackHub, naps: list[float]) -> None:
    api = hf.HfApi(token=hub.token)
    assert api.whoami()["name"] == "tester"
    for _ in range(2):
        assert str(api.create_repo(NAME, private=True, exist_ok=True)) == f"{hub.endpoint}/{NAME}"
    assert hub.repositories[NAME].visibility == "private"
    with pytest.raises(errors.HfHubHTTPError, match="already created") as caught:
        api.create_repo(NAME)
    assert caught.value.response.status_code == 409
    with pytest.raises(errors.HfHubHTTPError, match="under the namespace"):
        api.create_repo("someone/model")
    with pytest.raises(errors.HfHubHTTPError, match="401"):
        hf.create_repo(NAME)
    with pytest.raises(errors.HfHubHTTPError, match="Invalid user token"):
        hf.whoami(token="hf_nobody")


def test_a_card_is_checked(hub: LoopbackHub, naps: list[float], tmp_path: Path) -> None:
    hub.put(NAME, {})
    api = hf.HfApi(token=hub.token)
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.upload_folder(repo_id=NAME, folder_path=write_folder(tmp_path / "bad", {"README.md": b"---\na: [\n---\n"}))
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.upload_folder(repo_id=NAME, folder_path=write_folder(tmp_path / "none", {"README.md": b"# Title\n"}))


def test_branches_tags_and_commits_are_told_apart(hub: LoopbackHub, naps: list[float]) -> None:
    first = hub.put(NAME, {"config.json": b"1", "kept.txt": b"kept"})
    second = hub.put(NAME, {"config.json": b"2"})
    hub.put(NAME, {"config.json": b"3"}, revision="branch/of work")
    hub.repositories[NAME].refs["v1"] = first
    found = {revision: download("config.json", revision=revision) for revision in ("main", "v1", "branch/of work")}
    assert found == {"main": b"2", "v1": b"1", "branch/of work": b"3"}
    assert [download("config.json", revision=commit) for commit in (first, second)] == [b"1", b"2"]
    assert hub.files(NAME) == {"config.json": b"2", "kept.txt": b"kept"}
    assert hf.repo_info(NAME, revision="v1").sha == first


def test_what_is_not_there_has_the_clients_own_errors(hub: LoopbackHub, naps: list[float]) -> None:
    hub.put(NAME, FILES)
    with pytest.raises(errors.RemoteEntryNotFoundError):
        download("absent.json")
    for call in (hf.hf_hub_download, hf.snapshot_download):
        arguments = ("config.json",) if call is hf.hf_hub_download else ()
        with pytest.raises(errors.RevisionNotFoundError):
            call(NAME, *arguments, revision="absent")
        for token in (None, hub.token):
            with pytest.raises(errors.RepositoryNotFoundError):
                call("tester/absent", *arguments, token=token)
    with pytest.raises(errors.RepositoryNotFoundError):
        hf.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id="tester/absent", token=hub.token)


def test_private_and_gated_repositories_ask_who_you_are(hub: LoopbackHub, naps: list[float]) -> None:
    hub.put(NAME, FILES)
    for visibility, error in (("private", errors.RepositoryNotFoundError), ("gated", errors.GatedRepoError)):
        hub.repositories[NAME].visibility = visibility
        for token in (None, hub.stranger):
            with pytest.raises(error):
                download("config.json", token=token)
    with pytest.raises(errors.HfHubHTTPError, match="Invalid credentials"):
        download("config.json", token="hf_nobody")
    with pytest.raises(errors.HfHubHTTPError, match="403"):
        hf.upload_file(path_or_fileobj=b"1", path_in_repo="a", repo_id=NAME, token=hub.stranger)
    assert sorted(hf.list_repo_files(NAME)) == sorted(FILES)  # gated: shown to all
    assert download("config.json", token=hub.token) == b"{}"


def test_the_token_of_the_client_is_sent(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    hub.repositories[NAME].visibility = "private"
    with hub.client(tmp_path, token=hub.token):
        assert download() == WEIGHTS


def test_a_cut_is_resumed_within_the_call(hub: LoopbackHub, naps: list[float]) -> None:
    hub.put(NAME, FILES)
    hub.faults.append(Fault("cut", "model.safetensors", after=0.3, times=1))
    assert download() == WEIGHTS
    whole_chunks = int(len(WEIGHTS) * 0.3) // CHUNK * CHUNK
    assert ranges(hub) == [None, f"bytes={whole_chunks}-"]
    assert naps == [1]


@pytest.mark.parametrize(
    ("fault", "error", "calls"),
    [
        (Fault("cut", after=0.01), httpx2.RemoteProtocolError, 6),
        (Fault("hangup"), httpx2.RemoteProtocolError, 6),
        (Fault("reset"), httpx2.ReadError, 1),  # the client does not count it among the failures that pass
        (Fault("status", status=500), errors.HfHubHTTPError, 1),
        (Fault("length", change=-10), OSError, 1),
        (Fault("length", change=10), OSError, 1),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else None,
)
def test_a_download_that_fails_leaves_nothing(
    hub: LoopbackHub, naps: list[float], tmp_path: Path, fault: Fault, error: type[Exception], calls: int
) -> None:
    hub.put(NAME, FILES)
    hub.faults.append(fault)
    with pytest.raises(error):
        download()
    assert len(ranges(hub)) == calls
    assert kept(tmp_path / "home") == set()
    hub.faults.clear()
    assert download() == WEIGHTS


def test_other_bytes_of_the_right_length_are_not_noticed(hub: LoopbackHub, naps: list[float]) -> None:
    hub.put(NAME, FILES)
    hub.faults.append(Fault("content", "model.safetensors", times=1))
    wrong = bytes(255 - level for level in WEIGHTS)
    assert download() == wrong
    assert download() == wrong  # from the cache, under the name of the right SHA-256
    assert download(force_download=True) == WEIGHTS


def test_waits_as_long_as_the_server_says(hub: LoopbackHub, naps: list[float]) -> None:
    hub.put(NAME, FILES)
    hub.faults.append(Fault("status", "config.json", status=429, retry_after=7, times=2))
    assert download("config.json") == b"{}"
    assert naps == [8, 8]  # the client adds a second
    hub.faults.append(Fault("status", "model.safetensors", method="HEAD", status=500, times=3))
    assert download() == WEIGHTS
    assert naps == [8, 8, 1, 2]  # the first try, without a sleep after it, is to find out whether the Hub is there


def test_a_hub_that_is_silent_is_given_up(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    hub.faults.append(Fault("silent", "model.safetensors", method="HEAD"))
    with hub.client(tmp_path, timeout=0.05) as naps, pytest.raises(errors.LocalEntryNotFoundError) as caught:
        download()
    assert isinstance(caught.value.__cause__, httpx2.ReadTimeout)
    assert naps == [1, 2, 4, 8, 8]


def test_a_file_that_does_not_come_is_given_up(
    hub: LoopbackHub, naps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(NAME, FILES)
    hub.faults.append(Fault("silent", "model.safetensors"))
    monkeypatch.setattr(hf.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    with pytest.raises(httpx2.ReadTimeout):
        download()
    assert hub.faults[0].struck == 6
    assert naps == [1] * 5


def test_silence_ends_when_it_is_released(hub: LoopbackHub, naps: list[float]) -> None:
    hub.put(NAME, FILES)
    hub.faults.append(Fault("silent", "config.json", times=1))
    release = threading.Thread(target=lambda: (wait_until_struck(hub.faults[0]), hub.release()))
    release.start()
    assert download("config.json") == b"{}"
    release.join()
    assert ranges(hub) == [None, None]


def test_a_download_that_stalls_goes_on_after_the_timeout(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    hub.faults.append(Fault("stall", "model.safetensors", times=1))
    with hub.client(tmp_path, timeout=0.5):
        assert download() == WEIGHTS
    assert ranges(hub) == [None, f"bytes={len(WEIGHTS) // 2 // CHUNK * CHUNK}-"]


def test_offline_has_what_is_cached(hub: LoopbackHub, naps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    hub.put(NAME, FILES)
    assert download() == WEIGHTS
    seen = len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert download() == WEIGHTS
    with pytest.raises(errors.LocalEntryNotFoundError) as caught:
        download("config.json")
    assert isinstance(caught.value.__cause__, errors.OfflineModeIsEnabled)
    with pytest.raises(errors.LocalEntryNotFoundError, match="HF_HUB_OFFLINE=0"):
        hf.snapshot_download("tester/absent")
    with pytest.raises(errors.OfflineModeIsEnabled):
        hf.create_repo(NAME)
    assert len(hub.requests) == seen


def test_a_listing_can_lie(hub: LoopbackHub, naps: list[float], tmp_path: Path) -> None:
    hub.put(NAME, {"../outside.txt": b"out"})
    assert hf.list_repo_files(NAME) == ["../outside.txt"]
    with pytest.raises(ValueError, match=r"cannot contain a '\.\.' path segment"):
        hf.snapshot_download(NAME)
    assert list(tmp_path.rglob("outside.txt")) == []
    hub.repositories[NAME].listing = [{"type": "file", "path": "never.txt", "size": 1, "oid": "0" * 40}]
    assert hf.list_repo_files(NAME) == ["never.txt"]
    assert hf.repo_info(NAME).siblings[0].rfilename == "never.txt"


def test_a_child_finds_the_server(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.put(NAME, FILES)
    hub.repositories[NAME].visibility = "private"
    code = f"import huggingface_hub as hf; print(open(hf.hf_hub_download({NAME!r}, 'config.json')).read())"
    environment = hub.environment(tmp_path, token=hub.token)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"
    assert kept(tmp_path) == {2}


def test_nothing_is_left_of_a_server_or_of_its_client(tmp_path: Path) -> None:
    before = values_of_constants()
    threads = set(threading.enumerate())
    with socket.socket() as waiting:
        with LoopbackHub() as hub, hub.client(tmp_path):
            hub.put(NAME, FILES)
            hub.faults.append(Fault("silent", "/api/"))
            waiting.connect(("127.0.0.1", hub.server_port))
            waiting.sendall(b"GET /api/whoami-v2 HTTP/1.1\r\nHost: hub\r\n\r\n")
            assert download() == WEIGHTS
            wait_until_struck(hub.faults[0])
            assert hub.endpoint == values_of_constants()["ENDPOINT"] == hf.hf_api.api.endpoint
        assert waiting.recv(1) == b""
    assert set(threading.enumerate()) == threads
    assert hf.utils._http._GLOBAL_CLIENT is None
    assert values_of_constants() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", hub.server_port))

"""huggingface_hub talking to a server of the tests: in this process, and in a child."""

import importlib
import importlib.util
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# For pytest.mark.filterwarnings: what huggingface_hub 2.4 itself warns of when it uploads a large file.
LARGE_UPLOAD_WARNING = "ignore:Use 'content=:DeprecationWarning"

CHUNK = 1 << 16  # bytes

# Copies of constants that other modules of the package took when they were imported.
_COPIES = {
    "utils._cache_manager": "HF_HUB_CACHE",
    "utils._cache_assets": "HF_ASSETS_CACHE",
    "utils._git_credential": "ENDPOINT",
}


class HastyClock:
    """Stands in for the module `time` inside one other module: there, `sleep` only notes for how long."""

    def __init__(self) -> None:
        self.naps: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Note the time and go on."""
        self.naps.append(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def client_environment(endpoint: str, home: Path, token: str = "", timeout: int = 5) -> dict[str, str]:
    """The variables to add to a child's environment: all files under `home`, nothing from this machine's own login.

    Retries there take the library's own time: after a first failure the timeout for a file's headers is a minute,
    and no variable changes that.
    """
    paths = {"HF_HOME": "", "HF_HUB_CACHE": "hub", "HF_ASSETS_CACHE": "assets", "HF_XET_CACHE": "xet"}
    return {
        **{name: str(home / part) for name, part in paths.items()},
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": token,
        "HUGGING_FACE_HUB_TOKEN": "",
        "HF_OIDC_RESOURCE": "",
        "HF_HUB_DOWNLOAD_TIMEOUT": str(timeout),
        "HF_HUB_ETAG_TIMEOUT": str(timeout),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
        "HUGGINGFACE_CO_STAGING": "0",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


@contextmanager
def client_at(
    endpoint: str, home: Path, token: str = "", timeout: float = 5.0, chunk: int = CHUNK
) -> Iterator[list[float]]:
    """Inside, huggingface_hub uses `endpoint` and keeps its files under `home`; it retries at once.

    Its `http_get` writes, and resumes after, whole chunks only. The library's are 10 MiB: with those a file of the
    tests would never be resumed, but fetched anew. For the offline mode, set `HF_HUB_OFFLINE` of
    `huggingface_hub.constants` inside. Downloads from a file server of the tests go inside as well.

    Yields:
        The sleeps, in seconds, that were left out so far.
    """
    from huggingface_hub import _tree_cache, constants, file_download, hf_api
    from huggingface_hub.utils import _http

    clock = HastyClock()
    _http.close_session()  # it may hold another proxy, and connections to another server
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in client_environment(endpoint, home, token).items():
                patch.setenv(name, value)
            _patch_constants(patch)
            patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", timeout)  # variables know whole seconds only
            patch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", timeout)
            patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", chunk)
            patch.setattr(hf_api.api, "endpoint", endpoint)  # that of the functions without an HfApi
            patch.setattr(_http, "_HUB_ORIGINS", frozenset({_http._url_origin(endpoint)}))
            patch.setattr(_tree_cache, "_IN_MEMORY_TREE_CACHE", {})
            patch.setattr(file_download, "_ETAG_RETRY_TIMEOUT", timeout)
            patch.setattr(file_download, "time", clock)
            patch.setattr(_http, "time", clock)
            patch.setattr("vdvae_lr.files.download.time", clock)
            yield clock.naps
    finally:
        _http.close_session()


def _patch_constants(patch: pytest.MonkeyPatch) -> None:
    """Give huggingface_hub's constants the values they would have, had it been imported in this environment."""
    constants = importlib.import_module("huggingface_hub.constants")
    fresh = _executed_anew(constants)
    for name, value in vars(fresh).items():
        if name.isupper() and not name.startswith("_") and getattr(constants, name) != value:
            patch.setattr(constants, name, value)
    for module, name in _COPIES.items():
        patch.setattr(importlib.import_module(f"huggingface_hub.{module}"), name, getattr(fresh, name))
    bars = importlib.import_module("huggingface_hub.utils.tqdm")
    patch.setattr(bars, "progress_bar_states", {"_global": False})


def _executed_anew(module: ModuleType) -> ModuleType:
    """The module as an import would make it now, without putting it in anybody's place."""
    specification = importlib.util.spec_from_file_location(module.__name__, os.fspath(module.__file__ or ""))
    if specification is None or specification.loader is None:
        raise ImportError(f"{module.__name__} has no source to execute")
    fresh = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(fresh)
    return fresh

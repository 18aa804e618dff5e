"""Let huggingface_hub use a server of the tests, in this process or in a child process."""

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

# For pytest.mark.filterwarnings: a warning of huggingface_hub 2.4 itself when it uploads a large file.
LARGE_UPLOAD_WARNING = "ignore:Use 'content=:DeprecationWarning"

CHUNK = 1 << 16  # bytes

# Other modules of the package copied these constants when they were imported.
_COPIES = {
    "utils._cache_manager": "HF_HUB_CACHE",
    "utils._cache_assets": "HF_ASSETS_CACHE",
    "utils._git_credential": "ENDPOINT",
}


class HastyClock:
    """Replaces the module `time` inside one other module. Its `sleep` only records the seconds."""

    def __init__(self) -> None:
        self.naps: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Record the seconds, and return at once."""
        self.naps.append(seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def client_environment(endpoint: str, home: Path, token: str = "", timeout: int = 5) -> dict[str, str]:
    """The environment variables for a child process: all files are under `home`, and no login of this machine is used.

    Retries in the child take the library's own time. After a first failure, the timeout for the headers of a file is a
    minute, and no variable changes that.
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
    """Inside this context, huggingface_hub uses `endpoint`, keeps its files under `home`, and retries at once.

    Its `http_get` writes whole chunks, and resumes only after whole chunks. The library's chunks are 10 MiB, so the
    small files of the tests would never be resumed; they get smaller chunks. For the offline mode, set `HF_HUB_OFFLINE`
    of `huggingface_hub.constants` inside the context. Downloads from a file server of the tests also need it.

    Yields:
        The sleeps, in seconds, that were skipped so far.
    """
    from huggingface_hub import _tree_cache, constants, file_download, hf_api
    from huggingface_hub.utils import _http

    clock = HastyClock()
    _http.close_session()  # it may have another proxy, and connections to another server
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in client_environment(endpoint, home, token).items():
                patch.setenv(name, value)
            _patch_constants(patch)
            patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", timeout)  # a variable takes whole seconds only
            patch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", timeout)
            patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", chunk)
            patch.setattr(hf_api.api, "endpoint", endpoint)  # for functions that are called without an HfApi
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
    """Set huggingface_hub's constants to the values of a fresh import in this environment."""
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
    """The module as a fresh import would make it; the imported one stays in place."""
    specification = importlib.util.spec_from_file_location(module.__name__, os.fspath(module.__file__ or ""))
    if specification is None or specification.loader is None:
        raise ImportError(f"{module.__name__} has no source to execute")
    fresh = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(fresh)
    return fresh

"""Files of the Hugging Face Hub, fetched by huggingface_hub, with one sentence for each of its errors.

A downloaded file is compared with the digest that its repository lists. A file that differs is removed from the cache.
Only files that are asked for by name are written, whatever a repository lists.
"""

import hashlib
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import (
    _CACHED_NO_EXIST,
    cached_assets_path,
    errors,
    get_session,
    hf_hub_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined] # from its HTTP client

from vdvae_lr.errors import InputError, Unreachable
from vdvae_lr.files.digests import file_sha256
from vdvae_lr.files.download import record_of
from vdvae_lr.files.network_errors import first_line, network_errors, status_words, without_secrets
from vdvae_lr.files.paths import is_folder

LIBRARY = "vdvae_lr"
_UPLOAD_TIMEOUT_S = 120.0  # without an answer; a Hub may need a while for a large commit
_OURS = ("config.json", "model.safetensors")
_COMMIT = re.compile("[0-9a-f]{40}")
_SITE = r"(?P<site>(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:api/)?(?:models/)?|hf://(?:models/)?)"
_REPOSITORY = r"(?P<repository>[\w.-]+/[\w.-]+)"
_REVISION = r"(?:@(?P<at>[\w./-]+))?"
_PLACE = r"(?:/(?P<page>tree|blob|resolve|raw|commit)(?:/(?P<revision>[^/?#]+))?[^?#]*|/discussions[^?#]*)?"
_ON_THE_HUB = re.compile(rf"{_SITE}?{_REPOSITORY}(?:{_REVISION}|{_PLACE})/*(?:[?#].*)?", re.ASCII)
_REMEDY = "try again later, or check the connection"


@dataclass(frozen=True)
class HubAccess:
    """How to reach the Hub; the fields are those of huggingface_hub."""

    revision: str | None = None
    """Branch, tag or commit; None: the default branch."""
    token: str | bool | None = None
    """None: the token of `hf auth login`, if there is one."""
    cache_dir: str | Path | None = None
    """None: the usual cache (HF_HOME, HF_HUB_CACHE)."""
    force_download: bool = False
    local_files_only: bool = False
    repo_type: str | None = None
    """`dataset`, or None for a model."""


def check_hub_name(name: str) -> None:
    """Refuse the address of a page on the Hub, and a revision inside a name (raises InputError).

    The address of a file of weights (`…/resolve/…/model.safetensors`) and a plain OWNER/NAME are accepted.
    """
    found = _ON_THE_HUB.fullmatch(name)
    if found is None or (found["page"] == "resolve" and name.startswith("https://")):
        return
    here = is_folder(Path(found["repository"]).parent)  # more likely a misspelt path than an account
    if not found["site"] and (not found["at"] or here):
        return
    revision = found["at"] or found["revision"] or "main"
    chosen = f" and --revision {revision} (in Python revision='{revision}')" if revision != "main" else ""
    what = "has a revision in the name" if found["at"] else "is the address of a repository on the Hub"
    raise InputError(f"'{without_secrets(name)}' {what}; write {found['repository']}{chosen}.")


def asset_path(name: str, access: HubAccess) -> Path:
    """The path in the Hub's usual cache of a file from another server, `KIND/FILE` or `KIND/FOLDER/FILE`.

    With `force_download`, a file that is there is removed. Raises InputError if the cache is unusable, or if the file
    is not there and `local_files_only` forbids fetching it.
    """
    kind, _, name = name.partition("/")
    try:
        path = cached_assets_path(LIBRARY, kind, "files") / name
    except (OSError, ValueError) as error:
        raise InputError(
            f"the Hugging Face cache cannot be used ({first_line(error)}); name a folder of yours with HF_HOME."
        ) from None
    if access.local_files_only and not path.exists():
        raise Unreachable(f"{path.name} is not in the cache, and local_files_only forbids fetching; leave that out.")
    if access.force_download:
        for each in (path, record_of(path)):
            each.unlink(missing_ok=True)
    return path


def repository_file(repository: str, name: str, access: HubAccess) -> Path:
    """The file `name` of a repository, downloaded into the cache if needed, and checked.

    Raises InputError if the Hub cannot be reached or refuses, or if the content has another digest.
    """
    with hub_errors(repository, name, access.revision):
        path = Path(hf_hub_download(repository, name, library_name=LIBRARY, **asdict(access)))
    _check_content(path, repository)
    return path


def optional_repository_file(repository: str, name: str, access: HubAccess) -> Path | None:
    """Like `repository_file`, but None if the repository has no such file."""
    if not access.force_download and _COMMIT.fullmatch(access.revision or ""):  # the files of a commit never change
        with hub_errors(repository, name, access.revision):
            found = try_to_load_from_cache(repository, name, access.cache_dir, access.revision)
        if found is _CACHED_NO_EXIST:
            return None
    try:
        return repository_file(repository, name, access)
    except InputError as error:
        if isinstance(error.__cause__, errors.EntryNotFoundError):
            return None
        raise


def _check_content(path: Path, repository: str) -> None:
    if _is_what_was_listed(path):
        return
    try:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    except OSError:
        raise InputError(
            f"{path} has another content than repository {repository} lists, and cannot be removed; name another cache "
            "with HF_HOME."
        ) from None
    raise InputError(
        f"{path.name} of repository {repository} has another content than the repository lists, so it was removed from "
        "the cache; run the same command again."
    )


def _is_what_was_listed(path: Path) -> bool:
    """Compare with the digest by which the cache names content: git's SHA-1 for small files, SHA-256 for large ones."""
    listed = path.readlink().name if path.is_symlink() else ""
    if len(listed) == 64:
        return file_sha256(path) == listed
    if len(listed) == 40:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == listed
    return True  # no links here, or the server is no Hub: the client has compared the length


@contextmanager
def hub_errors(repository: str, name: str, revision: str | None = None) -> Iterator[None]:
    """Turn errors of the Hub and of the network into one sentence with a remedy (raises InputError)."""
    with network_errors(f"repository {repository}", _REMEDY):
        try:
            with _causes():
                yield
        except (errors.HFValidationError, errors.EntryNotFoundError, errors.HfHubHTTPError) as error:
            answered = isinstance(error.__cause__, errors.HfHubHTTPError)
            kind = Unreachable if isinstance(error, errors.LocalEntryNotFoundError) and not answered else InputError
            raise kind(_sentence(error, repository, name, revision)) from error
        except (errors.LocalTokenNotFoundError, HTTPError, ValueError) as error:
            no_token = isinstance(error, errors.LocalTokenNotFoundError | UnicodeEncodeError)
            if no_token or str(error).startswith("Illegal header value"):
                raise InputError(
                    f"the token for repository {repository} is missing, or has letters that no token has; log in with "
                    "'hf auth login'."
                ) from None  # the cause's message contains the token
            if isinstance(error, HTTPError):
                raise
            raise InputError(  # contradicting options, or a file name that leads out of the repository
                f"repository {repository} cannot be used like this ({first_line(error)}); mend what the brackets name."
            ) from error


@contextmanager
def _causes() -> Iterator[None]:
    """Raise the cause of a failed forced download or upload, not the client's "failed due to the above error"."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        wrapped = isinstance(error, RuntimeError) or str(error).startswith("Force download failed")
        if error.__cause__ is None or not wrapped:
            raise
        raise error.__cause__ from None


@contextmanager
def upload_timeout() -> Iterator[None]:
    """Inside, an upload fails if the Hub stays silent. The client itself would wait for ever."""
    session = get_session()
    before, session.timeout = session.timeout, _UPLOAD_TIMEOUT_S
    try:
        yield
    finally:
        session.timeout = before


@contextmanager
def pull_elsewhere(*words: str) -> Iterator[None]:
    """If the block finds no network, add the command that fetches these weights on another machine to its InputError.

    `words` are the arguments of `vdvae-lr pull`, with the weights' name as the person gave it.
    """
    try:
        yield
    except Unreachable as error:
        command = shlex.join(["vdvae-lr", "pull", *words])
        raise InputError(
            f"{str(error).removesuffix('.')}, or run this on a machine with network and the same HF_HOME: {command}"
        ) from error.__cause__


def _sentence(error: Exception, repository: str, name: str, revision: str | None) -> str:
    where = f"repository {repository}" + (f" at {revision}" if revision else "")
    match error:
        case errors.HFValidationError():
            return f"{repository[:100]!r} cannot be a repository's name; give OWNER/NAME of plain letters."
        case errors.LocalEntryNotFoundError():
            return f"{name} of {where} is not in the cache, and {_why_unreachable(error)}."
        case errors.GatedRepoError():
            return f"{where} is gated: ask for access on its page, then log in with 'hf auth login'."
        case errors.RepositoryNotFoundError():
            return f"there is no {where} on the Hub for this login; check its name, or log in with 'hf auth login'."
        case errors.RevisionNotFoundError():
            return f"repository {repository} has no revision '{revision}'; give one of its branches, tags or commits."
        case errors.EntryNotFoundError() if name not in _OURS:
            return f"{where} has no {name}; check what it is called there."
        case errors.EntryNotFoundError():
            return (
                f"{where} has no {name}; only weights that this program wrote are read (config.json and "
                "model.safetensors), for other formats may run code."
            )
        case _:
            return f"{where} {_refusal(error)}."


def _refusal(error: Exception) -> str:
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    remedy = "log in with 'hf auth login' as somebody who may" if status in (401, 403) else _REMEDY
    return f"answers {status_words(status)}; {remedy}"


def _why_unreachable(error: Exception) -> str:
    """Why a file that the cache lacks was not fetched: offline mode, no connection, or a server's error."""
    cause = error.__cause__
    if isinstance(cause, errors.HfHubHTTPError):
        return f"the Hub {_refusal(cause)}"
    if cause is None or "offline" in str(cause).lower():
        return "the network may not be used (HF_HUB_OFFLINE or local_files_only); allow it"
    return f"the Hub cannot be reached ({first_line(cause)}); {_REMEDY}" if isinstance(cause, Exception) else _REMEDY

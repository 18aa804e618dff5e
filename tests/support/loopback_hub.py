"""A server on this machine with the part of the Hugging Face Hub that huggingface_hub 2.4 uses.

    with LoopbackHub() as hub, hub.client(tmp_path) as naps:
        commit = hub.put("tester/model", {"config.json": b"{}", "model.safetensors": weights})
        hub.faults.append(Fault("cut", "model.safetensors", after=0.3, times=1))
        snapshot_download("tester/model")

Differences from the real Hub: large files come from the same address instead of a redirect to a CDN, nothing is stored
as Xet, listings have one page, `.gitignore` is not applied, and a new repository has no `.gitattributes`. The name of a
repository says who owns it: OWNER/NAME for a model, datasets/OWNER/NAME for a data set, which can only be read.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from loopback_client import CHUNK, client_at, client_environment
from loopback_faults import LoopbackHandler, LoopbackServer
from loopback_repositories import Repository, StoredFile, is_large

_REPOSITORY = r"(?P<name>[^/]+/[^/]+)"
_MODEL_OR_DATASET = r"(?P<name>(?:datasets/)?[^/]+/[^/]+)"
_KIND = r"(?P<kind>models|datasets)"
_REVISION = r"(?P<revision>[^/]+)"
_OBJECT = r"/lfs/(?P<oid>[0-9a-f]{64})"
_ROUTES = {
    rf"(?:GET|HEAD) /{_MODEL_OR_DATASET}/resolve/{_REVISION}/(?P<path>.+)": "_resolve",
    rf"GET /api/{_KIND}/{_REPOSITORY}(?:/revision/{_REVISION})?": "_describe",
    rf"GET /api/{_KIND}/{_REPOSITORY}/tree/{_REVISION}": "_list",
    r"GET /api/whoami-v2": "_who_am_i",
    r"POST /api/validate-yaml": "_validate_card",
    r"POST /api/repos/create": "_create",
    rf"POST /api/models/{_REPOSITORY}/preupload/{_REVISION}": "_choose_storage",
    rf"POST /{_REPOSITORY}\.git/info/lfs/objects/batch": "_offer_upload",
    rf"PUT {_OBJECT}": "_store",
    rf"POST {_OBJECT}": "_verify",
    rf"POST /api/models/{_REPOSITORY}/commit/{_REVISION}": "_commit",
}


class _Refused(Exception):
    """An answer other than success: its status, the Hub's message, and its X-Error-Code if there is one."""

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}


class _Endpoint(LoopbackHandler):
    """Has the methods that `_ROUTES` names. Each takes the groups of its pattern, and answers or raises `_Refused`."""

    server: "LoopbackHub"

    def respond(self) -> None:
        request = f"{self.command} {urlsplit(self.path).path}"
        routes = ((re.fullmatch(pattern, request), name) for pattern, name in _ROUTES.items())
        found = next(((match, name) for match, name in routes if match), None)
        try:
            if found is None:
                raise _Refused(HTTPStatus.NOT_FOUND, f"the loopback Hub does not know {request}")
            values = found[0].groupdict()
            getattr(self, found[1])(**{key: value and unquote(value) for key, value in values.items()})
        except _Refused as refused:
            self._json({"error": str(refused)}, refused.status, refused.headers)

    def _json(self, content: object, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> None:
        self.answer(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _user(self) -> str | None:
        """The user whose token came with the request; None without a token."""
        authorization = self.headers.get("Authorization")
        if authorization is None:
            return None
        user = self.server.tokens.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise _Refused(HTTPStatus.UNAUTHORIZED, "Invalid credentials in Authorization header")
        return user

    def _repository(self, name: str, write: bool = False) -> Repository:
        user, owner = self._user(), _owner(name)
        repository = self.server.repositories.get(name)
        # The real Hub sends no code here. Over plain http, the client does not recognise a 401 without one.
        if user is None and (repository is None or repository.visibility == "private" or write):
            raise _Refused(HTTPStatus.UNAUTHORIZED, "Invalid username or password.", "RepoNotFound")
        if repository is None or (repository.visibility == "private" and user != owner):
            raise _Refused(HTTPStatus.NOT_FOUND, "Repository not found", "RepoNotFound")
        if write and user != owner:
            raise _Refused(HTTPStatus.FORBIDDEN, "Forbidden: pass `create_pr=1` to create a Pull Request")
        return repository

    def _commit_id(self, repository: Repository, revision: str) -> str:
        commit = repository.resolve(revision)
        if commit is None:
            raise _Refused(HTTPStatus.NOT_FOUND, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        user = self._user()
        if repository.visibility == "gated" and user != _owner(name):
            status = HTTPStatus.FORBIDDEN if user else HTTPStatus.UNAUTHORIZED
            raise _Refused(status, f"Access to {name} is restricted.", "GatedRepo")
        commit = self._commit_id(repository, revision)
        headers = {"X-Repo-Commit": commit}
        file = repository.commits[commit].get(path)
        if file is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "Entry not found", "EntryNotFound", headers)
        headers["ETag"] = f'"{file.etag}"'
        if file.large:
            headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(len(file.content))}
        self.answer_file(file.content, headers)

    def _describe(self, kind: str, name: str, revision: str | None) -> None:
        repository = self._repository(name if kind == "models" else f"{kind}/{name}")
        commit = self._commit_id(repository, revision or "main")
        siblings: list[dict[str, Any]] = [{"rfilename": entry["path"]} for entry in repository.entries(commit)]
        if "blobs" in parse_qs(urlsplit(self.path).query):
            for sibling, entry in zip(siblings, repository.entries(commit), strict=True):
                sibling |= {"size": entry["size"], "blobId": entry["oid"]}
                if large := entry.get("lfs"):
                    sibling["lfs"] = {key: large[key] for key in ("size", "pointerSize")} | {"sha256": large["oid"]}
        private, gated = (repository.visibility == kind for kind in ("private", "gated"))
        dates = dict.fromkeys(("createdAt", "lastModified"), "2026-01-01T00:00:00.000Z")
        about = {"id": name, "sha": commit, "private": private, "gated": "manual" if gated else False, "tags": []}
        readme = repository.commits[commit].get("README.md")
        card = {} if readme is None else {"cardData": _head(readme.content.decode())}
        self._json({**about, **dates, **card, "siblings": siblings})

    def _list(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(name if kind == "models" else f"{kind}/{name}")
        self._json(repository.entries(self._commit_id(repository, revision)))

    def _who_am_i(self) -> None:
        user = self._user()
        if user is None:
            raise _Refused(HTTPStatus.UNAUTHORIZED, "Invalid username or password.")
        token = {"displayName": "tests", "role": "write"}
        self._json({"type": "user", "name": user, "orgs": [], "auth": {"type": "access_token", "accessToken": token}})

    def _validate_card(self) -> None:
        text = json.loads(self.body)["content"]
        if re.match(r"---\n.*?\n---(\n|$)", text, re.DOTALL) is None:
            self._json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
            return
        import yaml  # a dependency of huggingface_hub

        try:
            yaml.safe_load(text.split("---", 2)[1])
        except yaml.YAMLError as error:
            self._json({"errors": [{"message": str(error)}], "warnings": []}, HTTPStatus.BAD_REQUEST)
        else:
            self._json({"errors": [], "warnings": []})

    def _create(self) -> None:
        wanted, user = json.loads(self.body), self._user()
        if user is None:
            raise _Refused(HTTPStatus.UNAUTHORIZED, "Invalid username or password.")
        owner = wanted.get("organization") or user
        if owner != user:
            message = f'You don\'t have the rights to create a model under the namespace "{owner}"'
            raise _Refused(HTTPStatus.FORBIDDEN, message)
        name = f"{owner}/{wanted['name']}"
        about = {"name": name, "url": f"{self.server.endpoint}/{name}"}
        if name in self.server.repositories:
            self._json({**about, "error": "You already created this model repo"}, HTTPStatus.CONFLICT)
            return
        self.server.repositories[name] = Repository(name, wanted.get("visibility") or "public")
        self._json(about)

    def _choose_storage(self, name: str, revision: str) -> None:
        repository = self._repository(name, write=True)
        present = repository.commits[self._commit_id(repository, revision)]
        chosen = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            mode = "lfs" if is_large(path, file["size"]) else "regular"
            known = {"oid": present[path].etag} if path in present else {}
            chosen.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
        self._json({"files": chosen})

    def _offer_upload(self, name: str) -> None:
        self._repository(name, write=True)
        offers = []
        for offer in json.loads(self.body)["objects"]:
            action = {"href": f"{self.server.endpoint}/lfs/{offer['oid']}", "header": {}}
            known = offer["oid"] in self.server.objects
            offers.append(offer if known else {**offer, "actions": {"upload": action, "verify": action}})
        kind = {"Content-Type": "application/vnd.git-lfs+json"}
        self._json({"transfer": "basic", "objects": offers}, headers=kind)

    def _store(self, oid: str) -> None:
        self.server.objects[oid] = self.body  # unchecked: `_verify` checks it
        self.answer(HTTPStatus.OK)

    def _verify(self, oid: str) -> None:
        content = self.server.objects.get(oid, b"")
        if hashlib.sha256(content).hexdigest() != oid or len(content) != json.loads(self.body)["size"]:
            self.server.objects.pop(oid, None)
            raise _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "the object is not what was announced")
        self.answer(HTTPStatus.OK)

    def _commit(self, name: str, revision: str) -> None:
        repository = self._repository(name, write=True)
        lines = [json.loads(line) for line in self.body.splitlines()]
        head = repository.refs.get(revision)
        if head is None:
            raise _Refused(HTTPStatus.NOT_FOUND, f"Invalid rev id: {revision}", "RevisionNotFound")
        if lines[0]["value"].get("parentCommit", head) != head:
            raise _Refused(HTTPStatus.PRECONDITION_FAILED, "A commit has happened since. Please refresh and try again.")
        changes: dict[str, StoredFile | None] = {}
        for line in lines[1:]:
            changes |= self._changes(line["key"], line["value"], repository.commits[head])
        commit = repository.commit(revision, changes)
        url = f"{self.server.endpoint}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url})

    def _changes(self, key: str, value: dict[str, Any], present: Mapping[str, object]) -> dict[str, StoredFile | None]:
        """The change of files by one line of a commit."""
        path = value["path"]
        if key == "file":
            return {path: StoredFile(base64.b64decode(value["content"]), large=False)}
        if key == "deletedFile" and path in present:
            return {path: None}
        if key == "deletedFolder":
            return {name: None for name in present if name.startswith(path.rstrip("/") + "/")}
        if key != "lfsFile" or value["oid"] not in self.server.objects:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"cannot commit {key} {path}")
        return {path: StoredFile(self.server.objects[value["oid"]], large=True)}


def _owner(name: str) -> str:
    return name.removeprefix("datasets/").partition("/")[0]


def _head(readme: str) -> object:
    """The metadata at the head of a README; None if it has none, or damaged ones."""
    import yaml  # a dependency of huggingface_hub

    try:
        return yaml.safe_load(readme.split("---", 2)[1])
    except (IndexError, yaml.YAMLError):
        return None


class LoopbackHub(LoopbackServer):
    """A Hub with two users: `tester`, who owns the repositories tester/…, and `stranger`.

    Attributes:
        endpoint: the value for HF_ENDPOINT.
        tokens: the user for each token; at first there are the tokens `token` and `stranger`.
        repositories: the repository for each name, to change what `put` and `files` cannot (visibility, listing, refs).
        objects: uploaded large files by SHA-256.
    """

    token = "hf_tester"
    stranger = "hf_stranger"

    def __init__(self) -> None:
        super().__init__(_Endpoint)
        self.endpoint = self.address
        self.tokens = {self.token: "tester", self.stranger: "stranger"}
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}

    def put(self, name: str, files: Mapping[str, bytes], revision: str = "main") -> str:
        """Commit `files` to a branch, and create the branch and the repository if needed; return the commit's id."""
        repository = self.repositories.setdefault(name, Repository(name))
        stored = {path: StoredFile(content, is_large(path, len(content))) for path, content in files.items()}
        return repository.commit(revision, stored)

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """The files of a branch, tag or commit. Raises KeyError if it does not exist."""
        repository = self.repositories[name]
        return {path: file.content for path, file in repository.commits[repository.resolve(revision) or ""].items()}

    def client(
        self, home: Path, token: str = "", timeout: float = 5.0, chunk: int = CHUNK
    ) -> AbstractContextManager[list[float]]:
        """Inside this context, huggingface_hub in this process uses this server: see `loopback_client.client_at`."""
        return client_at(self.endpoint, home, token, timeout, chunk)

    def environment(self, home: Path, token: str = "", timeout: int = 5) -> dict[str, str]:
        """The variables with which a child process uses this server: see `loopback_client.client_environment`."""
        return client_environment(self.endpoint, home, token, timeout)

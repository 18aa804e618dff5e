"""Repositories of the Hub, in memory: commits, branches, tags, and regular and large files."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

LARGE_SUFFIXES = (".safetensors", ".th")
LARGE_SIZE = 1 << 20  # bytes; a file of at least this size is large (10 MB on the real Hub)

Entry = dict[str, Any]


def is_large(name: str, size: int) -> bool:
    """Whether the Hub keeps a file in its large file storage (LFS), not in git."""
    return name.endswith(LARGE_SUFFIXES) or size >= LARGE_SIZE


def git_blob_id(content: bytes) -> str:
    """The id that git gives to a file with this content: 40 hexadecimal digits."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit, with the ids that the Hub gives to its content."""

    content: bytes
    large: bool

    @cached_property
    def etag(self) -> str:
        """The SHA-256 (64 digits) of a large file, or git's id (40 digits) of a regular file."""
        return hashlib.sha256(self.content).hexdigest() if self.large else git_blob_id(self.content)

    def entry(self, path: str) -> Entry:
        """The entry of the file in a tree listing."""
        size = len(self.content)
        if not self.large:
            return {"type": "file", "path": path, "size": size, "oid": self.etag}
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.etag}\nsize {size}\n".encode()
        large = {"oid": self.etag, "size": size, "pointerSize": len(pointer)}
        return {"type": "file", "path": path, "size": size, "oid": git_blob_id(pointer), "lfs": large}


@dataclass
class Repository:
    """A repository that begins with an empty commit on `main`. A commit is a whole tree; `refs` are branches and tags.

    Attributes:
        visibility: private: others do not see it; gated: all see its listing, but only its owner gets the files.
        listing: tree entries that the server shows instead of the true entries, to test wrong listings.
    """

    name: str
    visibility: Literal["public", "private", "gated"] = "public"
    listing: list[Entry] | None = None
    commits: dict[str, dict[str, StoredFile]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("main", {})

    def commit(self, branch: str, changes: Mapping[str, StoredFile | None]) -> str:
        """Add a commit to `branch`. A new branch starts from `main`. A change to None removes the file."""
        parent = self.refs.get(branch) or self.refs.get("main", "")
        merged = {**self.commits.get(parent, {}), **changes}
        tree = {name: file for name, file in merged.items() if file is not None}
        known = [(name, file.etag) for name, file in sorted(tree.items())]
        commit = hashlib.sha1(repr((self.name, len(self.commits), parent, known)).encode()).hexdigest()
        self.commits[commit] = tree
        self.refs[branch] = commit
        return commit

    def resolve(self, revision: str) -> str | None:
        """The commit with this branch name, tag or id."""
        return self.refs.get(revision) or (revision if revision in self.commits else None)

    def entries(self, commit: str) -> list[Entry]:
        """The files of a commit, at any depth."""
        if self.listing is not None:
            return self.listing
        return [file.entry(name) for name, file in sorted(self.commits[commit].items())]

"""Read what wandb wrote offline. Its file is a LevelDB log of its own protocol's records.

wandb's reader is a part of its Go program and not to be called from Python; its records' types are.
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER, _BLOCK, _RECORD_HEADER = 7, 32768, 7
_FULL, _FIRST, _LAST = 1, 2, 4


def _contents(path: Path) -> Iterator[bytes]:
    """The bytes of each whole record."""
    data, place, parts = path.read_bytes(), _HEADER, b""
    assert data[:4] == b":W&B"
    while place + _RECORD_HEADER <= len(data):
        if _BLOCK - place % _BLOCK < _RECORD_HEADER:  # a block's end too short for a header is filled with zeros
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        place += _RECORD_HEADER
        parts = (b"" if kind in (_FULL, _FIRST) else parts) + data[place : place + length]
        place += length
        if kind in (_FULL, _LAST):
            yield parts


def wandb_records(folder: Path) -> dict[str, list[Any]]:
    """The records of all starts of the runs in a `wandb` folder, by kind, in the order of the starts."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("offline-run-*/*.wandb")):
        for content in _contents(path):
            record = Record.FromString(content)
            kind = record.WhichOneof("record_type")
            found.setdefault(kind, []).append(getattr(record, kind))
    return found


def wandb_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows that were logged, without wandb's own columns."""
    rows = [
        {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in each.item}
        for each in wandb_records(folder)["history"]
    ]
    return [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]

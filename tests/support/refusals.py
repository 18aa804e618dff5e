"""Check refusals: one sentence, on one line, that names the thing, the cause and the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vdvae_lr.errors import InputError

LONGEST = 700  # characters; it may contain two paths in a temporary folder


@contextmanager
def refused(thing: str, cause: str, remedy: str) -> Iterator[pytest.ExceptionInfo[InputError]]:
    """Inside this context, an `InputError` must be raised, on one line, that matches all three."""
    with pytest.raises(InputError) as caught:
        yield caught
    sentence = str(caught.value)
    assert sentence.isprintable(), f"more than a line of plain text: {sentence!r}"
    assert len(sentence) <= LONGEST, f"{len(sentence)} characters: {sentence[:LONGEST]}…"
    missing = [words for words in (thing, cause, remedy) if words not in sentence]
    assert not missing, f"{missing} not in: {sentence}"
    assert not thing or sentence.count(thing) < 3, f"says too often what it is about: {sentence}"

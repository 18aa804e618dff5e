"""What others may read of an address, and of what strangers wrote."""

import pytest

from vdvae_lr.files.network_errors import plain, without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://alice:hunter2@host:8443/a/model.th?sig=SECRET#part", "https://host:8443/a/model.th"),
        ("https://host/model.th", "https://host/model.th"),
        ("https://[::1/model.th?sig=SECRET", "https://[::1/model.th"),
        ("runs/lr", "runs/lr"),
        ("somebody/lrvdvae-ffhq256", "somebody/lrvdvae-ffhq256"),
    ],
)
def test_an_address_is_shown_without_login_and_query(address: str, shown: str) -> None:
    assert without_secrets(address) == shown


def test_strangers_words_stay_on_one_short_line() -> None:
    assert plain("a\x1b[2Jb\nc") == "a [2Jb c"
    assert len(plain("x" * 10_000)) < 500

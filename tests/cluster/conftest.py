"""What the tests of the cluster's scripts share."""

from collections.abc import Iterator

import pytest
from stand_ins import end_all


@pytest.fixture(autouse=True)
def no_script_outlives_its_test() -> Iterator[None]:
    yield
    end_all()

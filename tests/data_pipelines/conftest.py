"""Fixtures that the tests of clips share."""

import pytest

from data_pipelines.clips import ClipData
from tests.clip_records import SMALL, make_splits, write


@pytest.fixture(scope="session")
def records():
    """24 ordinary records of 0.9 s; in split `odd` those that lack something."""
    return make_splits()


@pytest.fixture(scope="session")
def prepared(records, tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "p", records, ["a", "b"])


@pytest.fixture(scope="session")
def data(prepared):
    return ClipData(prepared, SMALL, seed=3)

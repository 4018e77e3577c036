import pytest

from tests.training import tiny_model


@pytest.fixture(scope="session")
def stack_model(tmp_path_factory):
    """A random tiny model; the data set is written beside it."""
    return tiny_model.build(tmp_path_factory.mktemp("stack") / "model")

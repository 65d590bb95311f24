import pytest
import toy_runs


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Pictures of four colours, 160 to train on: ten updates an epoch."""
    return toy_runs.make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def toy(monkeypatch):
    """Has the network "toy" be one of the published ones."""
    toy_runs.register(monkeypatch)

import pytest
import toy_runs


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Pictures of four colors, 160 of them for training: ten updates per epoch."""
    return toy_runs.make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def toy(monkeypatch):
    """Registers the network "toy" like the published ones."""
    toy_runs.register(monkeypatch)

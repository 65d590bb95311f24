import pytest
import road_twins

from keras_convnext.roadmap.steps import REGIMES


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    for toy in road_twins.TOYS.values():
        monkeypatch.setitem(REGIMES, toy.name, toy)

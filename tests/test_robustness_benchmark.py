"""The robustness benchmark: its corruptions against other implementations, its table and resume."""

import colorsys
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
IMAGES[0, :2] = [[[0, 0, 0]], [[90, 90, 90]]]  # black and gray


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def corruptions(benchmark):
    return benchmark("corruptions")


def _by_pixel(change):
    def apply(image):
        flat = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in image]
        return np.array(flat)

    return apply


def _capped(value):
    return min(max(value, 0), 1)


@pytest.mark.parametrize(
    ("name", "parameters", "change"),
    [
        ("brightness", (0.3,), lambda h, s, v: (h, s, _capped(v + 0.3))),
        ("saturate", (2.5, 0.2), lambda h, s, v: (h, _capped(s * 2.5 + 0.2), v)),
        ("saturate", (0.3, 0), lambda h, s, v: (h, s * 0.3, v)),
    ],
)
def test_colors_change_as_in_hsv(corruptions, name, parameters, change):
    x = IMAGES / 255
    found = getattr(corruptions, name)(x, None, *parameters)
    expected = _by_pixel(change)(x.reshape(-1, 3)).reshape(x.shape)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_an_enlargement_is_that_of_scipy(corruptions):
    x = IMAGES / 255
    kept, first = 29, 1  # of 32, at a factor of 1.12
    window = x[:, first : first + kept, first : first + kept]
    whole = ndimage.zoom(window, (1, 1.12, 1.12, 1), order=1)
    np.testing.assert_allclose(corruptions._enlarged(x, 1.12), whole[:, :32, :32], atol=1e-12)


def test_a_line_of_motion_is_drawn_from_the_point(corruptions):
    x = np.zeros((1, 32, 32, 3))
    x[0, 16, 16] = 1

    class Level:  # the angle is 0
        def uniform(self, low, high, count):
            return np.zeros(count)

    line = corruptions.motion_blur(x, Level(), 6, 2)[0, 16, :, 0]
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    np.testing.assert_allclose(line[16:3:-1], weights / weights.sum(), atol=1e-12)
    assert not line[17:].any()


def test_a_disk_spreads_a_point_and_keeps_its_light(corruptions):
    x = np.zeros((1, 32, 32, 3))
    x[0, 16, 16] = 1
    spread = corruptions.defocus_blur(x, None, 1.5, 0.1)[0, :, :, 0]
    np.testing.assert_allclose(spread[15:18, 15:18], 1 / 9, atol=1e-9)
    assert spread.sum() == pytest.approx(1)


def test_each_corruption_grows_and_is_repeatable(corruptions):
    for corruption in corruptions.CORRUPTIONS:
        changed = [corruptions.corrupted(IMAGES, corruption, each) for each in (1, 5, 5)]
        assert {(each.dtype, each.shape) for each in changed} == {(IMAGES.dtype, IMAGES.shape)}
        np.testing.assert_array_equal(changed[1], changed[2])
        mild, strong = (np.abs(each.astype(int) - IMAGES).mean() for each in changed[:2])
        if corruption.apply is corruptions.saturate:  # first less color, then more
            strong += mild
        assert 0 < mild < strong, corruption.name


class Network:
    """Classifies by the brightest channel; counts its predictions."""

    input_shape = (None, 32, 32, 3)

    def __init__(self):
        self.calls = 0

    def predict(self, images, **_):
        self.calls += 1
        return images.mean(axis=(1, 2))


def test_a_measurement_goes_on_where_it_was_interrupted(benchmark, tmp_path, monkeypatch):
    robustness = benchmark("robustness")
    colors = np.eye(3)[[0, 1, 2, 0]] * 200
    images = np.broadcast_to(colors[:, None, None], (4, 32, 32, 3)).astype(np.uint8)
    network, saved = Network(), []
    monkeypatch.setattr(robustness, "opened", lambda file: network)
    monkeypatch.setattr(robustness, "digest_of", lambda file: "0" * 64)
    monkeypatch.setattr(robustness, "BATCH", 3)

    class Stop(Exception):
        pass

    def interrupt():
        saved.append(json.dumps(figures))
        if len(saved) == 4:
            raise Stop

    labels, figures = np.array([0, 1, 2, 1]), {"models": {}, "command": "python"}
    with pytest.raises(Stop):
        robustness.measure("toy", None, images, labels, figures, interrupt)
    figures = json.loads(saved[-1])
    robustness.measure("toy", None, images, labels, figures, lambda: None)
    sets = 1 + 5 * len(robustness.CORRUPTIONS)
    assert network.calls == 2 * sets  # two batches each, none twice
    errors = figures["models"]["toy"]["errors"]
    assert len(errors) == sets
    assert errors["clean"] == 0.25
    table = robustness.markdown(figures)
    assert "| clean | 25.0 |" in table
    counted = [each for each in robustness.CORRUPTIONS if each.counts]
    mean = np.mean([errors[f"{each.name} {level}"] for each in counted for level in range(1, 6)])
    assert f"| **mean of 12** | {100 * mean:.1f} |" in table
    robustness.draw(figures, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_the_table_has_the_models_of_its_command(benchmark, tmp_path, monkeypatch):
    robustness = benchmark("robustness")
    images = np.full((4, 32, 32, 3), 100, np.uint8)
    monkeypatch.setattr(
        robustness, "images_of", lambda folder, limit: (images[:limit], np.zeros(limit))
    )
    monkeypatch.setattr(robustness, "opened", lambda file: Network())
    monkeypatch.setattr(robustness, "digest_of", lambda file: "0" * 64)
    monkeypatch.setattr(robustness, "description", lambda libraries: {})
    weights = tmp_path / "mixup" / "final.keras"
    weights.parent.mkdir()
    weights.touch()

    def table(*options):
        monkeypatch.setattr("sys.argv", ["robustness.py", "cifar10", *map(str, options)])
        robustness.main()
        return (tmp_path / "out" / "robustness.md").read_text("utf-8")

    output = ("--output", tmp_path / "out")
    both = table("--model", f"mixup={weights}", "--limit", 4, *output)
    assert "FOLDER --model mixup=mixup/final.keras --limit 4`" in both
    assert "| | shipped | mixup |" in both
    alone = table("--limit", 2, *output)
    assert "over 2 test images" in alone
    assert "| | shipped |\n" in alone

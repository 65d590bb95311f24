"""Each format gives Keras' answers, in its own runtime; what goes wrong leaves nothing behind."""

import json
import shutil
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest
from artifacts import PROGRAMS, error_of, hierarchical, images, logits_elsewhere, networks
from test_builders import policy  # noqa: F401  (a fixture)
from test_fusing import randomize

import keras_convnext
from keras_convnext.export import Artifact, ExportError, export, exporting
from keras_convnext.export.formats import FORMATS

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
PHOTOGRAPHS = len(list(PHOTOS.glob("*.jpg")))
FORMATS_HERE = list(PROGRAMS)


@pytest.fixture(scope="module")
def toys():
    return networks()


@pytest.fixture(scope="module")
def exported(toys, tmp_path_factory):
    """Exports a toy in float32, once: a folder and the difference."""

    @cache
    def exported(kind, name):
        folder = tmp_path_factory.mktemp(name) / "out"
        return folder, export(toys[kind], folder, name)

    return exported


@pytest.mark.parametrize("name", FORMATS_HERE)
def test_a_process_without_keras_gets_the_same_logits(toys, exported, name):
    pixels = {}
    for kind, model in toys.items():
        folder, difference = exported(kind, name)
        assert difference.error < FORMATS[name].tolerance
        assert (difference.same_top1, difference.same_top5, difference.images) == (
            1,
            1,
            PHOTOGRAPHS,
        )
        pixels[folder] = images(5, model.input_shape[1]).astype("float32")
    elsewhere = logits_elsewhere(name, pixels)
    for model, (folder, asked) in zip(toys.values(), pixels.items()):
        assert error_of(elsewhere[folder], model, asked) < FORMATS[name].tolerance


@pytest.mark.parametrize("name", FORMATS_HERE)
def test_an_artifact_takes_any_number_of_bytes_of_any_size(name, tmp_path):
    model = randomize(hierarchical(input_shape=(None, None, 3)))
    export(model, tmp_path / "out", name, pixels="uint8", size=64)
    artifact = Artifact(tmp_path / "out")
    assert artifact.size == 64
    for number, size in ((1, 64), (3, 64), (2, 96), (1, 64)):
        pixels = images(number, size)
        found = artifact(pixels)
        assert error_of(found["logits"], model, pixels) < 1e-5
        np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-5)
    features = keras.Model(model.input, model.get_layer("norm").output)
    if name != "saved_model":  # has a signature for them
        theirs = np.asarray(features(pixels.astype("float32")))
        np.testing.assert_allclose(found["features"], theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype", "error", "share"),
    [
        ("saved_model", "float16", 2e-3, 0.75),
        pytest.param("saved_model", "bfloat16", 2e-2, 0.75, marks=pytest.mark.slow),
        ("onnx", "float16", 2e-3, 0.6),
        ("onnx", "bfloat16", 2e-2, 0.6),
        ("onnx", "int8", 0.2, 0.6),
        ("litert", "float16", 2e-3, 0.6),
        ("litert", "int8", 0.2, 0.6),
        ("openvino", "float16", 2e-3, 0.6),
        # The arithmetic too, where the processor has it.
        pytest.param("openvino", "bfloat16", 5e-2, 0.6, marks=pytest.mark.slow),
        ("openvino", "int8", 0.2, 0.6),
    ],
)
def test_smaller_weights_make_a_smaller_file_of_nearly_the_same_answers(
    toys, exported, name, dtype, error, share, tmp_path
):
    model = toys["hierarchical"]
    export(model, tmp_path / "out", name, dtype=dtype, images=PHOTOS)
    heavy = {"saved_model": "1/variables", "openvino": "model.bin"}
    sizes = []
    for folder in (tmp_path / "out", exported("hierarchical", name)[0]):
        place = folder / heavy.get(name, FORMATS[name].file)
        files = [place] if place.is_file() else place.iterdir()
        sizes.append(sum(path.stat().st_size for path in files))
    assert sizes[0] < share * sizes[1]
    pixels = np.stack(
        [keras_convnext.preprocessing.load_image(p, 64) for p in PHOTOS.glob("*.jpg")]
    )
    found = Artifact(tmp_path / "out")(pixels)["logits"]
    assert 1e-5 < error_of(found, model, pixels) < error


def test_what_is_known_of_an_artifact_lies_beside_it(toys, tmp_path):
    names = [f"kind {number}" for number in range(7)]
    source = {"weights": "toy", "sha256": "0" * 64}
    difference = export(
        toys["hierarchical"], tmp_path / "out", "onnx", names=names, source=source, images=PHOTOS
    )
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    assert told["classes"] == names == Artifact(tmp_path / "out").names
    assert told["source"] == source
    assert told["difference"] == difference._asdict()
    assert told["versions"].keys() > {"keras-convnext", "keras", "onnx", "onnxruntime"}
    assert "short side to 73 px" in told["preparation"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "caffe"}, "one of saved_model, onnx, litert, openvino"),
        ({"format": "saved_model", "dtype": "int8"}, "float32, float16, bfloat16"),
        ({"format": "onnx", "dtype": "int8"}, "pass a folder"),
        ({"pixels": "int32"}, "float32 or uint8"),
        ({"size": 65}, "size=65"),
        ({"names": ["one"]}, "7 classes"),
    ],
)
def test_what_cannot_be_exported_is_said_at_once(toys, options, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        export(toys["hierarchical"], tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"include_top": False}, "include_top=True"),
        ({"include_preprocessing": False}, "include_preprocessing=True"),
    ],
)
def test_a_model_that_names_no_classes_of_pixels_is_refused(options, said, tmp_path):
    if "include_top" in options:
        options = {**options, "classes": None, "pooling": "avg"}
    with pytest.raises(ValueError, match=said):
        export(hierarchical(**options), tmp_path / "out")


def test_a_model_of_half_precision_is_refused(policy, tmp_path):  # noqa: F811
    policy("mixed_float16")
    with pytest.raises(ValueError, match="policy mixed_float16"):
        export(hierarchical(), tmp_path / "out")


def test_a_folder_that_holds_something_is_left_alone(toys, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="must be new or empty"):
        export(toys["hierarchical"], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    export(toys["hierarchical"], tmp_path / "empty", "onnx")
    assert {path.name for path in (tmp_path / "empty").iterdir()} == {"model.onnx", "export.json"}


@pytest.mark.parametrize("name", ["onnx", "litert", "openvino"])
def test_a_runtime_that_is_not_there_is_named_with_its_extra(toys, name, tmp_path, monkeypatch):
    absent = FORMATS[name].packages[-1]
    found = exporting.require.__globals__["missing_packages"].__globals__["importlib"].util
    find = found.find_spec
    monkeypatch.setattr(found, "find_spec", lambda it, *rest: None if it == absent else find(it))
    with pytest.raises(ImportError, match=rf'{absent}: pip install "keras-convnext\[export\]"'):
        export(toys["hierarchical"], tmp_path / "out", name)


@pytest.mark.parametrize("name", FORMATS_HERE)
def test_other_answers_than_the_live_model_leave_no_artifact(toys, name, tmp_path, monkeypatch):
    def spoilt(model):
        made = served(model)
        head = made.get_layer("head")
        head.bias.assign(head.bias + 0.01)
        return made

    served = exporting.served_network
    monkeypatch.setattr(exporting, "served_network", spoilt)
    with pytest.raises(ExportError, match="it was removed"):
        export(toys["hierarchical"], tmp_path / "out", name)
    assert not list(tmp_path.iterdir())


def test_the_publisher_of_openvino_is_not_told_of_an_export(toys, tmp_path, monkeypatch):
    from openvino.tools.ovc.telemetry_stub import Telemetry  # see conftest.py

    told = []
    monkeypatch.setattr(Telemetry, "send_event", lambda self, *event: told.append(event))
    export(toys["isotropic"], tmp_path / "out", "openvino")
    assert told == []


def test_a_full_disk_leaves_no_artifact(toys, tmp_path, monkeypatch):
    def write(path, *rest):
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    import onnx

    monkeypatch.setattr(onnx, "save", lambda graph, path: write(path))
    with pytest.raises(ExportError, match="No space left on device"):
        export(toys["hierarchical"], tmp_path / "out", "onnx")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_artifact_is_refused(tmp_path):
    for told in (None, "{}", '{"format": "caffe"}', "text"):
        if told is not None:
            (tmp_path / "export.json").write_text(told)
        with pytest.raises(ValueError, match="keras-convnext export"):
            Artifact(tmp_path)
    shutil.rmtree(tmp_path)
    with pytest.raises(ValueError, match="keras-convnext export"):
        Artifact(tmp_path)

"""A SavedModel answers pixels, files and questions for features, in any TensorFlow."""

import io
import json
import resource
import threading
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from artifacts import hierarchical, images, isotropic, live_logits
from forked import Forked
from PIL import Image
from test_fusing import randomize

import keras_convnext
from keras_convnext.export import export
from keras_convnext.export.saved_model import UNREADABLE
from keras_convnext.preprocessing import load_image

PHOTOS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))
NAMES = [f"kind {number}" for number in range(7)]


@pytest.fixture(scope="module")
def model():
    return randomize(hierarchical())


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("served") / "toy"
    export(model, place, names=NAMES)
    return place


@pytest.fixture(scope="module")
def served(folder):
    return tf.saved_model.load(str(folder / "1"))


def bomb():
    """A PNG of a few hundred kilobytes that becomes 2.7 gigabytes."""

    def chunk(kind, content):
        body = kind + content
        return len(content).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    side = (30_000).to_bytes(4, "big")
    header = chunk(b"IHDR", side + side + bytes([8, 2, 0, 0, 0]))
    row = zlib.compress(bytes(3 * 30_000 + 1))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def assert_answers(found, index, model, pixels):
    """What is said of one image is what the live model says of its pixels."""
    scores = np.exp(live_logits(model, pixels[None])[0].astype("float64"))
    scores /= scores.sum()
    order = np.argsort(-scores)[:5]
    np.testing.assert_array_equal(found["class_ids"][index], order)
    np.testing.assert_allclose(found["probabilities"][index], scores[order], rtol=2e-3)
    assert [name.decode() for name in found["names"][index].numpy()] == [NAMES[i] for i in order]
    assert found["errors"][index].numpy() == b""


def test_files_are_decoded_and_cropped_as_the_checkpoint_wants(model, served):
    files = [path.read_bytes() for path in PHOTOS]
    files.append(png(np.tile(images(1, 200)[0, :, :, :1], 3)))
    files.append(png(images(1, 90, seed=1)[0, :, :, 0]))  # gray
    found = served.signatures["serve_bytes"](images=tf.constant(files))
    for index, file in enumerate(files):
        assert_answers(found, index, model, load_image(file, 64))


def test_a_broken_image_is_told_of_alone(model, served):
    good = PHOTOS[0].read_bytes()
    gif_bomb = b"GIF89a" + b"\xff\xff" * 2 + b"\x00\x00\x00;"
    files = [b"", good, b"text", good[:2000], bomb(), good, gif_bomb, b"\x89PNG"]
    found = served.signatures["serve_bytes"](images=tf.constant(files))
    assert [error.decode() for error in found["errors"].numpy()] == [
        "" if file == good else UNREADABLE for file in files
    ]
    for index, file in enumerate(files):
        if file == good:
            assert_answers(found, index, model, load_image(good, 64))
        else:
            assert (found["class_ids"][index].numpy() == -1).all()
            assert (found["probabilities"][index].numpy() == 0).all()
            assert set(found["names"][index].numpy()) == {b""}
    none = served.signatures["serve_bytes"](images=tf.constant([], tf.string))
    assert none["class_ids"].shape == (0, 5)


def test_a_bomb_costs_little_memory(folder):
    program = """
import resource, sys
import tensorflow as tf
serve = (loaded := tf.saved_model.load(sys.argv[1])).signatures["serve_bytes"]
files = [open(path, "rb").read() for path in sys.argv[2:]]
serve(images=tf.constant(files[:1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
serve(images=tf.constant(files))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    (folder.parent / "bomb.png").write_bytes(bomb())
    done = Forked(program, folder / "1", PHOTOS[0], folder.parent / "bomb.png").wait()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300_000  # kilobytes; the pixels are 2,700,000


def test_features_are_what_the_classifier_sees_and_the_maps_of_the_stages(model, served):
    pixels = images(2, 64).astype("float32")
    found = served.signatures["features"](pixels=tf.constant(pixels))
    expected = keras_convnext.pyramid_features(model)(pixels)
    expected["features"] = keras.Model(model.input, model.get_layer("norm").output)(pixels)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        scale = np.abs(values).max()
        np.testing.assert_allclose(found[name] / scale, values / scale, atol=1e-5)


def test_an_isotropic_network_has_features_alone(tmp_path):
    export(randomize(isotropic()), tmp_path / "out")
    signatures = tf.saved_model.load(str(tmp_path / "out" / "1")).signatures
    assert set(signatures["features"].structured_outputs) == {"features"}
    assert set(signatures) == {"serving_default", "serve_bytes", "features"}


def test_threads_at_once_get_the_same_answers(model, served):
    serve = served.signatures["serve_bytes"]
    batches = [[path.read_bytes()] * (1 + i % 3) for i, path in enumerate(PHOTOS)]
    expected = [serve(images=tf.constant(batch)) for batch in batches]
    failures = []

    def ask(index):
        try:
            for _ in range(10):
                found = serve(images=tf.constant(batches[index]))
                for name, values in expected[index].items():
                    np.testing.assert_array_equal(found[name], values)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(i % len(batches),)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.slow
def test_two_thousand_requests_do_not_grow_the_memory(served):
    serve = served.signatures["serve_bytes"]
    files = tf.constant([path.read_bytes() for path in PHOTOS] + [b"text"])

    def resident():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6

    for _ in range(300):
        serve(images=files)
    before = resident()
    for _ in range(2000):
        serve(images=files)
    assert resident() - before < 20  # megabytes


def test_the_warm_up_is_requests_that_the_signatures_answer(folder, served):
    """Read by a description of the messages, as tensorflow/serving/apis has them."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="log.proto", package="serving", syntax="proto3")
    for name, fields in {
        "ModelSpec": [("name", 1, ""), ("signature_name", 3, "")],
        "Entry": [("key", 1, ""), ("value", 2, b"")],
        "PredictRequest": [("model_spec", 1, "ModelSpec"), ("inputs", 2, "*Entry")],
        "PredictLog": [("request", 1, "PredictRequest")],
        "PredictionLog": [("predict_log", 6, "PredictLog")],
    }.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            of = {"": kinds.TYPE_STRING, b"": kinds.TYPE_BYTES}.get(kind, kinds.TYPE_MESSAGE)
            repeated = of == kinds.TYPE_MESSAGE and kind.startswith("*")
            made = message.field.add(name=field, number=number, type=of)
            made.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if of == kinds.TYPE_MESSAGE:
                made.type_name = f".serving.{kind.strip('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    log = message_factory.GetMessageClass(pool.FindMessageTypeByName("serving.PredictionLog"))

    path = folder / "1" / "assets.extra" / "tf_serving_warmup_requests"
    asked, dtypes = [], {"pixels": tf.float32, "images": tf.string}
    for record in tf.data.TFRecordDataset(str(path)):
        request = log.FromString(record.numpy()).predict_log.request
        asked.append(request.model_spec.signature_name)
        inputs = {
            entry.key: tf.io.parse_tensor(entry.value, dtypes[entry.key])
            for entry in request.inputs
        }
        found = served.signatures[asked[-1]](**inputs)
        assert len(found["probabilities"]) == 1
        assert "errors" not in found or found["errors"].numpy() == b""
    assert asked == ["serving_default", "serve_bytes"]


def test_the_manifest_is_beside_the_version_folder(folder):
    assert {path.name for path in folder.iterdir()} == {"1", "export.json"}
    assert json.loads((folder / "export.json").read_text())["classes"] == NAMES

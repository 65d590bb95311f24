"""What a picture costs is what is asked of it, whatever its shape."""

import io

import numpy as np
import pytest
import tensorflow as tf
from demo.bad_uploads import png_of
from forked import Forked
from PIL import Image
from test_preprocessing import published_transform

from keras_convnext.data.checks import refuse_broken
from keras_convnext.data.errors import DataError
from keras_convnext.data.images import evaluation_image
from keras_convnext.data.sources import open_source
from keras_convnext.preprocessing import ImageError, load_image

# Of every kind of source, the memory in MB that a picture takes beyond that of an ordinary one.
PROGRAM = """
import io, resource, sys
import numpy as np, tensorflow as tf
from PIL import Image
from keras_convnext.data.images import evaluation_image, training_crop
from keras_convnext.demo.answers import Classifier, answer
from keras_convnext.preprocessing import load_image

def ways(path):
    data = tf.constant(open(path, "rb").read())
    for size in (224, 384):
        load_image(path, size)
        evaluation_image(data, size)
        training_crop(data, (1, 2), size)
    answer(Classifier(lambda pixels: np.ones((1, 2)), 224, ["a", "b"]), path)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

def make(path, width, height, mode="RGB", **options):
    Image.new(mode, (width, height)).save(path, **options)

make(sys.argv[1] + "/ordinary.png", 500, 400)
ways(sys.argv[1] + "/ordinary.png")
for width, height in ((8000, 1), (1, 8000), (60000, 1), (1, 60000), (60000, 3)):
    for mode, suffix in (("RGB", "png"), ("P", "png"), ("I;16", "png"), ("RGB", "jpg")):
        before = peak()
        make(sys.argv[1] + "/thin." + suffix, width, height, mode)
        ways(sys.argv[1] + "/thin." + suffix)
        print(width, height, mode, suffix, peak() - before)
"""


def test_thin_pictures_take_little_memory(tmp_path):
    done = Forked(PROGRAM, tmp_path).wait()
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 20
    assert max(int(line.split()[-1]) for line in lines) < 30, done.stdout


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("size", [32, 224, pytest.param(384, marks=pytest.mark.slow)])
@pytest.mark.parametrize("sides", [(20, 700), (3, 300), (1, 97), (300, 5000)])
@pytest.mark.parametrize("turned", [False, True])
def test_thin_pictures_have_the_pixels_of_the_published_transform(sides, size, turned):
    noise = np.random.default_rng(0).integers(0, 256, (*sides, 3)).astype("u1")
    image = Image.fromarray(noise.transpose(1, 0, 2) if turned else noise)
    ours = load_image(image, size).astype(int)
    difference = np.abs(ours - published_transform(size)(image))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.002
    difference = np.abs(ours - evaluation_image(tf.constant(encoded(image)), size).numpy())
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("sides", [(1, 150_000_000), (150_000_000, 1), (3, 50_000_000)])
def test_the_longest_pictures_are_placed_without_overflow(sides):
    from keras_convnext.data.images import _central

    placement = _central(*map(tf.constant, sides), 224, 0.875)
    top, left, height, width = placement.window.numpy().tolist()
    assert 0 < height < 12
    assert 0 < width < 12
    middle = [top + height / 2, left + width / 2]
    np.testing.assert_allclose(middle, np.array(sides) / 2, atol=1)
    assert np.abs(placement.translation).max() < 2000


def test_a_bomb_has_the_same_message_everywhere_and_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "bomb.png"
    path.write_bytes(png_of(30_000, 30_000))
    said = "The image has more than 178,956,970 pixels .* decompression bomb"
    with pytest.raises(ImageError, match=f"{said}.*Received: {path}"):
        load_image(path)
    with pytest.raises(DataError, match=f"An image is broken: {path}. {said}"):
        refuse_broken(open_source(tmp_path), [0])
    with pytest.raises(tf.errors.OpError, match=said):
        evaluation_image(tf.constant(path.read_bytes()))

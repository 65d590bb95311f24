import io
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch_reference
from PIL import Image
from pillow_reference import width_first

from keras_convnext.preprocessing import (
    ImageError,
    class_labels,
    class_names,
    decode_predictions,
    load_image,
    load_images,
    preprocess_input,
)
from keras_convnext.pretrained.record import recorded_names

PHOTOS = sorted((Path(__file__).parent.parent / "examples" / "photos").glob("*.jpg"))
SAMPLES = Path(__file__).parent.parent.parent / "shared" / "data" / "imagenet_samples.tar"


def published_transform(size, crop=None):
    """The evaluation transform of the official code, made of torchvision's parts.

    `crop` is timm's crop_pct, or 0 for its crop_mode="squash".

    torchvision resizes with Pillow, which then resized the width first.
    """
    torch_reference.declare_torchvision_operators()
    from torchvision import transforms

    bicubic = transforms.InterpolationMode.BICUBIC
    if size >= 384 if crop is None else crop == 0:
        transform = transforms.Resize((size, size), interpolation=bicubic)
    else:
        resize = transforms.Resize(int(size / (crop or 224 / 256)), interpolation=bicubic)
        transform = transforms.Compose([resize, transforms.CenterCrop(size)])

    def with_the_pillow_of_then(image):
        with mock.patch.object(Image.Image, "resize", width_first):
            return transform(image)

    return with_the_pillow_of_then


def picture(width, height, mode="RGB", seed=0):
    """Noise over a gradient, so that both the filter and the place of the crop show."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    ramp = np.add.outer(np.arange(height), np.arange(width)) * 195 // (height + width)
    return Image.fromarray((noise + ramp[..., None]).astype("uint8")).convert(mode)


def encoded(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [224, 288, 384])
@pytest.mark.parametrize(
    "side", [(500, 375), (333, 500), (224, 224), (90, 61), (257, 1025), (480, 640)]
)
def test_pixels_are_exactly_those_of_the_published_transform(side, size):
    image = picture(*side)
    np.testing.assert_array_equal(load_image(image, size), published_transform(size)(image))


@pytest.mark.parametrize(("size", "crop"), [(224, 0.95), (256, 1.0), (384, 1.0), (224, 0)])
def test_a_checkpoint_may_have_its_own_crop(size, crop):
    image = picture(500, 375)
    expected = published_transform(size, crop)(image)
    np.testing.assert_array_equal(load_image(image, size, crop), expected)
    np.testing.assert_array_equal(load_images([image], size, crop)[0], expected)


@pytest.mark.parametrize("crop", [-0.1, 1.01, float("nan")])
def test_a_crop_is_a_share(crop):
    with pytest.raises(ValueError, match=f"crop must be in 0..1. Received: crop={crop}"):
        load_image(picture(50, 50), 224, crop)


@pytest.mark.skipif(not SAMPLES.exists(), reason="the sample photographs are not here")
@pytest.mark.parametrize("size", [224, 384])
def test_real_photographs_are_within_half_a_gray_level(size, tmp_path):
    import tarfile

    transform = published_transform(size)
    with tarfile.open(SAMPLES) as archive:
        files = [archive.extractfile(m).read() for m in archive if m.name.endswith(".JPEG")]
    assert len(files) == 96
    for file in files:
        theirs = np.asarray(transform(Image.open(io.BytesIO(file)).convert("RGB")), float)
        assert np.abs(load_image(file, size) - theirs).mean() < 0.5


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)
def test_every_kind_of_source_gives_the_same(photo):
    from_path = load_image(photo)
    assert from_path.shape == (224, 224, 3)
    assert from_path.dtype == np.uint8
    opened = Image.open(photo)
    for source in (str(photo), photo.read_bytes(), opened, np.asarray(opened)):
        np.testing.assert_array_equal(load_image(source), from_path)


def test_a_batch_is_a_stack():
    batch = load_images(PHOTOS, size=64)
    assert batch.shape == (len(PHOTOS), 64, 64, 3)
    np.testing.assert_array_equal(batch[1], load_image(PHOTOS[1], 64))
    assert load_images([], size=64).shape == (0, 64, 64, 3)


@pytest.mark.parametrize(
    ("mode", "format"),
    [("L", "PNG"), ("L", "JPEG"), ("P", "PNG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("1", "PNG"),
     ("LA", "PNG"), ("P", "GIF")],
)  # fmt: skip
def test_other_modes_become_rgb_as_pillow_converts_them(mode, format):
    file = encoded(picture(300, 260, mode), format)
    expected = published_transform(224)(Image.open(io.BytesIO(file)).convert("RGB"))
    np.testing.assert_array_equal(load_image(file), expected)


def test_sixteen_bits_keep_their_upper_eight():
    gray = np.asarray(picture(256, 256, "L"))
    deep = Image.fromarray(gray.astype("uint16") * 257)
    np.testing.assert_array_equal(load_image(encoded(deep)), load_image(gray))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation):
    upright = picture(320, 240)
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(turn[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x112] = orientation
    file = encoded(stored, "PNG", exif=exif)
    np.testing.assert_array_equal(load_image(file), load_image(upright))


@pytest.mark.parametrize("shape", [(60, 80), (60, 80, 1), (60, 80, 3), (60, 80, 4)])
def test_arrays(shape):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype="uint8")
    rgb = np.broadcast_to(array.reshape(60, 80, -1)[..., :3], (60, 80, 3))
    np.testing.assert_array_equal(load_image(array), load_image(Image.fromarray(rgb.copy())))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"", "0 bytes"),
        (b"<html>not found</html>", "22 bytes"),
        (PHOTOS[0].read_bytes()[:5000], "5000 bytes"),
        (np.zeros((8, 8, 3), "float32"), "float32"),
        (np.zeros((8, 8, 2), "uint8"), r"\(8, 8, 2\)"),
        (np.zeros((2, 8, 8, 3), "uint8"), r"\(2, 8, 8, 3\)"),
        (np.zeros((0, 8, 3), "uint8"), r"\(0, 8, 3\)"),
    ],
    ids=["empty", "html", "truncated", "float", "two-channels", "batch", "no-rows"],
)
def test_what_is_no_image_is_said(source, said):
    with pytest.raises(ImageError, match=said):
        load_image(source)


def test_a_decompression_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="decompression bomb"):
        load_image(encoded(picture(200, 200)))


def test_files_are_named_in_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        load_image(tmp_path / "nowhere.jpg")
    (tmp_path / "text.jpg").write_text("text")
    with pytest.raises(ImageError, match=r"text\.jpg"):
        load_images([PHOTOS[0], tmp_path / "text.jpg"])


def test_labels_are_in_the_order_of_the_checkpoints():
    small, large = class_labels(1000), class_labels(21841)
    assert small[0] == ("n01440764", "tench")
    assert small[281] == ("n02123045", "tabby")
    assert small[999] == ("n15075141", "toilet_tissue")
    assert (len(small), len(large)) == (1000, 21841)
    for labels in (small, large):
        assert sorted(labels) == list(labels)
        assert all(wnid[0] == "n" and len(wnid) == 9 and name for wnid, name in labels)
    # ImageNet-22K lacks one class of ImageNet-1K, the teddy.
    assert set(small) - set(large) == {("n04399382", "teddy")}


def test_classes_are_named_by_the_file_beside_the_weights(tmp_path):
    (tmp_path / "classes.txt").write_text("ape\nn01440764\nn04399382\n")
    names = recorded_names(tmp_path / "best.keras")
    assert class_names(3, names) == (
        ("", "ape"), ("n01440764", "tench"), ("n04399382", "teddy"),
    )  # fmt: skip
    # Of another number they are not the classes of these weights.
    assert class_names(2, names) == (("", "class 0"), ("", "class 1"))
    assert class_names(1000, names) == class_labels(1000)
    assert class_names(2)[1] == ("", "class 1")


@pytest.mark.parametrize("classes", [1000, 21841])
def test_predictions_are_decoded_best_first(classes):
    scores = np.zeros((2, classes))
    scores[0, [7, 3]] = [0.6, 0.3]
    scores[1, 5] = 1
    labels = class_labels(classes)
    first, second = decode_predictions(scores, top=2)
    assert first == [(*labels[7], 0.6), (*labels[3], 0.3)]
    assert second[0] == (*labels[5], 1.0)


@pytest.mark.parametrize("shape", [(1000,), (2, 10), (1, 1, 1000)])
def test_only_imagenet_classes_are_decoded(shape):
    with pytest.raises(ValueError, match="Received: shape"):
        decode_predictions(np.zeros(shape))


@pytest.mark.parametrize("bad", [{"size": 0}, {"size": -1}])
def test_sizes_are_positive(bad):
    with pytest.raises(ValueError, match="size="):
        load_image(PHOTOS[0], **bad)


def test_preprocess_input_leaves_pixels_to_the_model():
    pixels = np.arange(3)
    assert preprocess_input(pixels) is pixels

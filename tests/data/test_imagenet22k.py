import io
import tarfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from data_on_disk import encoded_image
from PIL import Image

from keras_convnext.data.errors import DataError
from keras_convnext.data.imagenet22k import REPORT, Imagenet22k, rgb_jpeg
from keras_convnext.data.imagenet22k_release import find_release
from keras_convnext.data.sources import open_source
from keras_convnext.preprocessing import class_labels, open_image

WNIDS = [wnid for wnid, _ in class_labels(21841)]
FIRST, SECOND, LAST = WNIDS[0], WNIDS[1], WNIDS[-1]


def files():
    """Three classes, with what is wrong in the real release."""
    good = {
        wnid: {f"{wnid}_{i}.JPEG": encoded_image(i + 9 * n) for i in range(3)}
        for n, wnid in enumerate((FIRST, SECOND, LAST))
    }
    good[FIRST] |= {
        f"{FIRST}_cmyk.JPEG": encoded_image(80, mode="CMYK"),
        f"{FIRST}_gray.JPEG": encoded_image(80, mode="L"),
        f"{FIRST}_png.JPEG": encoded_image(80, mode="RGBA", file_format="PNG"),
    }
    good[LAST] |= {
        f"{LAST}_cut.JPEG": encoded_image(80, size=(200, 200))[:-200],
        f"{LAST}_none.JPEG": b"",
        f"{LAST}_text.JPEG": b"<html>not found</html>",
    }
    return good


def tar_of(contents, folder=""):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(folder + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def write_whole(folder, release="fall11"):
    tars = {f"{wnid}.tar": tar_of(contents) for wnid, contents in files().items()}
    inside = {"fall11": "", "winter21": "winter21_whole/"}[release]
    (folder / f"{release}_whole.tar").write_bytes(tar_of(tars, inside))


def write_winter(folder):
    write_whole(folder, "winter21")


def write_tars(folder):
    for wnid, contents in files().items():
        (folder / f"{wnid}.tar").write_bytes(tar_of(contents))


def write_folders(folder):
    for wnid, contents in files().items():
        (folder / "fall11_whole" / wnid).mkdir(parents=True)
        for name, data in contents.items():
            (folder / "fall11_whole" / wnid / name).write_bytes(data)


FORMS = [write_whole, write_winter, write_tars, write_folders]


@pytest.fixture
def manual(tmp_path):
    folder = tmp_path / "manual"
    folder.mkdir()
    return folder


def prepare(tmp_path, manual, file_format="array_record", **kwargs):
    builder = Imagenet22k(data_dir=tmp_path / "data", file_format=file_format)
    config = tfds.download.DownloadConfig(manual_dir=manual, **kwargs)
    builder.download_and_prepare(download_config=config)
    return builder


@pytest.mark.parametrize("write", FORMS)
def test_every_form_of_the_release_gives_the_same(tmp_path, manual, write):
    write(manual)
    builder = prepare(tmp_path, manual)
    source = open_source(builder.data_dir)
    assert (source.size, len(source.classes), source.split) == (12, 21841, "train")
    rows = list(source.records(shuffled=False).as_numpy_iterator())
    expected = {
        (data, WNIDS.index(wnid))
        for wnid, contents in files().items()
        for data in contents.values()
    }
    kept = {(encoded, int(label)) for encoded, label, _ in rows} & expected
    assert len(kept) == 10  # nine of RGB, one of gray
    assert sorted({int(label) for _, label, _ in rows}) == [0, 1, 21840]
    for encoded, *_ in rows:
        assert tf.io.decode_and_crop_jpeg(encoded, [0, 0, 4, 4], channels=3).shape == (4, 4, 3)


def test_what_was_done_to_the_files_is_told(tmp_path, manual, capsys):
    write_whole(manual)
    builder = prepare(tmp_path, manual)
    report = (builder.data_path / REPORT).read_text().splitlines()
    assert report[0] == (
        "fall11_whole.tar: 12 images in 3 classes; 21,838 classes are missing; 2 images "
        "re-encoded, 3 broken images skipped"
    )
    assert f"{report[0]}. See {REPORT}." in capsys.readouterr().out
    assert f"{FIRST}/{FIRST}_cmyk.JPEG\tre-encoded\tJPEG CMYK" in report
    assert f"{FIRST}/{FIRST}_png.JPEG\tre-encoded\tPNG RGBA" in report
    assert f"{LAST}/{LAST}_none.JPEG\tskipped\tempty file" in report
    assert f"{LAST}/{LAST}_text.JPEG\tskipped\tnot an image" in report
    assert [line.split("\t")[0] for line in report if "skipped\t" in line] == [
        f"{LAST}/{LAST}_{name}.JPEG" for name in ("cut", "none", "text")
    ]
    assert f"{WNIDS[2]}\tmissing from the release\t" in report
    again = Imagenet22k(data_dir=tmp_path / "data")
    assert again.info.metadata["broken"] == 3
    assert again.info.metadata["reencoded"] == 2
    assert {path.name for path in builder.data_path.iterdir()} >= {REPORT}
    assert not [path for path in builder.data_path.iterdir() if path.is_dir()]


def test_tfds_load_knows_the_name(tmp_path, manual):
    write_tars(manual)
    prepare(tmp_path, manual, "tfrecord")
    dataset = tfds.load("imagenet22k", split="train", data_dir=tmp_path / "data")
    assert {row["label"] for row in dataset.as_numpy_iterator()} == {0, 1, 21840}


def test_open_source_prepares_it_by_its_name(tmp_path, manual, monkeypatch):
    manual = tmp_path / "tfds" / "downloads" / "manual"
    manual.mkdir(parents=True)
    write_folders(manual)
    builder = tfds.builder
    monkeypatch.setattr(
        tfds, "builder", lambda name, **kwargs: builder(name, data_dir=tmp_path / "tfds", **kwargs)
    )
    assert open_source("imagenet22k", "train").size == 12


def test_without_the_release_it_is_said_where_to_get_it(tmp_path, monkeypatch):
    builder = tfds.builder
    monkeypatch.setattr(
        tfds, "builder", lambda name, **kwargs: builder(name, data_dir=tmp_path / "tfds", **kwargs)
    )
    with pytest.raises(
        DataError, match=r"imagenet22k has not been prepared yet(.|\n)*fall11_whole\.tar"
    ):
        open_source("imagenet22k")


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA", "LA", "I;16"])
def test_other_files_become_rgb_jpeg_of_the_same_look(mode):
    values = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint16)
    image = Image.fromarray(np.stack([values, values + 90, 255 - values], axis=-1).astype("u1"))
    image = Image.fromarray(values * 256) if mode == "I;16" else image.convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG" if mode == "CMYK" else "PNG")
    encoded, change = rgb_jpeg(file.getvalue())
    assert change == f"{'JPEG' if mode == 'CMYK' else 'PNG'} {mode}"
    decoded = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE").numpy()
    assert np.abs(decoded.astype(int) - np.asarray(open_image(file.getvalue()))).mean() < 2


def test_an_unknown_class_is_named(manual):
    write_folders(manual)
    (manual / "fall11_whole" / "n99999999").mkdir()
    with pytest.raises(DataError, match=r"n99999999 is not one of the 21,841"):
        find_release(manual)


def test_two_forms_side_by_side_are_refused(manual):
    write_whole(manual)
    write_tars(manual)
    with pytest.raises(DataError, match=r"in several forms.*fall11_whole\.tar, .*n\d+\.tar"):
        find_release(manual)


def test_a_folder_without_the_release_is_refused(manual):
    (manual / "ILSVRC2012_img_train.tar").touch()
    with pytest.raises(DataError, match="ImageNet-22K was not found"):
        find_release(manual)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_a_download_that_broke_off_is_noticed(manual, keep):
    write_whole(manual)
    path = manual / "fall11_whole.tar"
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(DataError, match=r"[Tt]ar file"):
        _ = [list(each.read()) for each in find_release(manual)[1]]


def test_a_tar_of_a_class_that_runs_into_the_next_is_noticed(manual):
    tars = {f"{wnid}.tar": tar_of(contents).rstrip(b"\0") for wnid, contents in files().items()}
    tars = {name: data + bytes(-len(data) % 512) for name, data in tars.items()}
    (manual / "fall11_whole.tar").write_bytes(tar_of(tars))
    with pytest.raises(DataError, match=rf"is truncated.*{FIRST}"):
        list(find_release(manual)[1][0].read())


def test_a_damaged_tar_of_a_class_is_noticed(manual):
    write_tars(manual)
    path = manual / f"{FIRST}.tar"
    data = bytearray(path.read_bytes())
    second = data.index(f"{FIRST}_1.JPEG".encode())
    data[second : second + 512] = b"x" * 512
    path.write_bytes(data)
    with pytest.raises(DataError, match=rf"tar file is damaged.*{FIRST}"):
        list(find_release(manual)[1][0].read())


def test_beam_gives_the_same(tmp_path, manual):
    beam = pytest.importorskip("apache_beam")
    write_whole(manual)
    alone = open_source(prepare(tmp_path / "alone", manual).data_dir)
    builder = prepare(tmp_path / "beam", manual, beam_runner=beam.runners.DirectRunner())
    spread = open_source(builder.data_dir)
    contents = [
        sorted((encoded, label) for encoded, label, _ in source.records().as_numpy_iterator())
        for source in (alone, spread)
    ]
    assert contents[0] == contents[1]
    assert (builder.data_path / REPORT).read_text() == (
        tmp_path / "alone" / "data" / "imagenet22k" / "1.0.0" / REPORT
    ).read_text()

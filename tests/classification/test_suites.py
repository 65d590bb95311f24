"""The sets that measure robustness: their lists, their layouts, and what is not one of them."""

import io
import json
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from data_on_disk import example, write_tfrecords
from PIL import Image
from released_suites import (
    WNIDS,
    color_model,
    picture,
    validation_name,
    write,
    write_corruptions,
    write_real_labels,
)

from keras_convnext.classification import evaluate, recipe_for
from keras_convnext.classification.input import open_training_data
from keras_convnext.classification.suite_data import open_release
from keras_convnext.classification.suite_recognition import refuse_suite_data, refuse_suite_source
from keras_convnext.classification.suites import (
    ALEXNET_ERRORS,
    SUITES,
    WHOLE,
    rule_of,
)
from keras_convnext.data.errors import DataError
from keras_convnext.data.reassessed import open_reassessed
from keras_convnext.data.sources import open_source

PIXELS = picture((10, 20, 30))
PUBLISHED = Path(find_spec("timm").submodule_search_locations[0]) / "data" / "_info"


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_the_lists_of_200_classes_are_those_of_timm(name):
    indices = [*map(int, (PUBLISHED / f"{name}_indices.txt").read_text().split())]
    wnids = (PUBLISHED / f"{name}_synsets.txt").read_text().split()
    assert list(SUITES[name].among) == indices == sorted(set(indices))
    assert [WNIDS[index] for index in SUITES[name].among] == wnids
    assert len(wnids) == 200


def test_the_corruptions_are_those_that_were_published():
    c, bar = SUITES["imagenet_c"], SUITES["imagenet_c_bar"]
    assert (len(c.corruptions), len(c.extras), len(bar.corruptions)) == (15, 4, 10)
    assert {*c.corruptions, *c.extras} == set(ALEXNET_ERRORS)
    # AlexNet's mean error over the benchmark
    mean = np.mean([ALEXNET_ERRORS[name] for name in c.corruptions])
    assert mean == pytest.approx(0.788993, 1e-6)
    of_tfds = tfds.builder_cls("imagenet2012_corrupted").BUILDER_CONFIGS
    assert {config.corruption_type for config in of_tfds} == {*c.corruptions, *c.extras}


def test_rules_state_how_images_are_prepared():
    a, c = SUITES["imagenet_a"], SUITES["imagenet_c"]
    assert rule_of(a, 224).startswith("short side resized to 256 px, center crop of 224 px")
    assert rule_of(a, 384).startswith("images warped to 384 px")
    assert rule_of(c, 224).startswith("files of 224 px as they are")
    assert rule_of(c, 384).startswith("files of 224 px resized to 384 px as a whole")


def opened(name, data):
    (part,) = open_release(SUITES[name], data).parts
    assert part.name == WHOLE
    return part.open()


def answers_of(opened):
    """The classes of ImageNet-1K that are right for each image, in order of its name."""
    source, labels = opened.source, opened.source.labels()
    return {
        source.name_of(i).rpartition("/")[2]: sorted(set(opened.answers[labels[i]]) - {-1})
        for i in range(source.size)
    }


def test_class_folders_of_other_classes_are_named(tmp_path):
    among = SUITES["imagenet_a"].among
    write(tmp_path, {f"{WNIDS[among[0]]}/a.jpg": PIXELS, f"{WNIDS[among[1]]}/b.jpg": PIXELS})
    write(tmp_path, {f"{WNIDS[0]}/c.jpg": PIXELS, "[red]extra/d.jpg": PIXELS})
    found = opened("imagenet_a", tmp_path)
    assert answers_of(found) == {"a.jpg": [among[0]], "b.jpg": [among[1]], "c.jpg": [], "d.jpg": []}
    unknown, absent = found.notes
    assert unknown == (
        f"not scored: 2 images of classes that ImageNet-A does not have: [red]extra, {WNIDS[0]}"
    )
    assert absent.startswith("198 of 200 classes have no images: ")
    write(tmp_path / "others", {"ant/a.jpg": PIXELS, "bee/a.jpg": PIXELS})
    with pytest.raises(DataError, match=r"ImageNet-A has classes with .* n01498041, .*: ant"):
        opened("imagenet_a", tmp_path / "others")


def test_folders_that_are_numbers_are_classes_by_index(tmp_path):
    numbers = [0, 1, 2, 10, 11, 100, 999]
    write(tmp_path, {f"{number}/{number}.jpeg": PIXELS for number in numbers})
    write(tmp_path, {"1000/x.jpeg": PIXELS, "more/y.jpeg": PIXELS})
    found = opened("imagenet_v2", tmp_path)
    assert answers_of(found) == {f"{number}.jpeg": [number] for number in numbers}
    assert "classes that ImageNet-V2 does not have: 1000, more" in found.notes[0]
    write(tmp_path, {"01/x.jpeg": PIXELS})
    with pytest.raises(DataError, match="Two class folders have the same number"):
        opened("imagenet_v2", tmp_path)


def test_another_variant_of_v2_is_not_the_published_one(tmp_path):
    for name, published in (("matched-frequency", True), ("threshold0.7", False)):
        folder = tmp_path / f"imagenetv2-{name}-format-val"
        write(folder, {"0/a.jpeg": PIXELS, "1/b.jpeg": PIXELS})
        release = open_release(SUITES["imagenet_v2"], folder)
        assert release.is_published is published
        assert bool(release.notes) is not published


@pytest.mark.parametrize("beside", [False, True])
def test_reassessed_labels_belong_to_the_numbers_of_images(tmp_path, beside):
    labels = {1: [5], 2: [], 7: [9, 3], 50_000: [999]}
    folder = tmp_path / "val"
    names = {number: validation_name(number) for number in labels}
    write(folder, {f"{WNIDS[0]}/{names[1]}": PIXELS, f"{WNIDS[1]}/{names[7]}": PIXELS})
    write(folder, {names[2]: PIXELS, names[50_000]: PIXELS})
    write_real_labels((tmp_path if beside else folder) / "real.json", labels)
    expected = {names[number]: sorted(own) for number, own in labels.items()}
    assert answers_of(opened("imagenet_real", folder)) == expected


def test_the_published_labels_are_within_the_limits(tmp_path):
    published = (PUBLISHED / "imagenet_real_labels.json").read_bytes()
    write(tmp_path, {validation_name(3): PIXELS, "real.json": published})
    _, answers = open_reassessed(tmp_path)
    lists = json.loads(published)
    assert [sorted(set(row) - {-1}) for row in answers.tolist()] == [*map(sorted, lists)]
    assert (answers >= 0).any(axis=1).sum() == 46_837


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"[[1]]", "for each of the 50,000 images. Received: 1 lists"),
        (b"{}", "Received: no list of lists"),
        (b"[[1], ", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (json.dumps([[1]] * 49_999 + [[1000]]).encode(), r"0 to 999. Received: \[1000\] for image"),
        (json.dumps([["a"]] + [[]] * 49_999).encode(), "0 to 999"),
        (json.dumps([3] + [[]] * 49_999).encode(), "Received: 3 for image 1"),
        (json.dumps([[3] * 101] + [[]] * 49_999).encode(), "at most 100 labels"),
        (b" " * (4 * 2**20 + 1), "at most 4 MB"),
    ],
)
def test_a_list_of_labels_that_is_none_is_refused(tmp_path, contents, message):
    write(tmp_path, {validation_name(3): PIXELS, "real.json": contents})
    with pytest.raises(DataError, match=message):
        open_reassessed(tmp_path)


def test_images_without_numbers_or_labels_are_refused(tmp_path):
    write(tmp_path, {"cats/cat.jpg": PIXELS})
    with pytest.raises(DataError, match=r"Download real\.json .*in.* or beside it"):
        open_reassessed(tmp_path)
    write_real_labels(tmp_path / "real.json", {})
    with pytest.raises(DataError, match=r"are named ILSVRC2012_val_00000001\.JPEG .*cat\.jpg"):
        open_reassessed(tmp_path)
    (tmp_path / "cats/cat.jpg").unlink()
    write(tmp_path, {f"{folder}/{validation_name(8)}": PIXELS for folder in "ab"})
    with pytest.raises(DataError, match="Two images have the number 8"):
        open_reassessed(tmp_path)


def names_of(release):
    return [part.name for part in release.parts]


def corrupted(root, *corruptions, severities=(1, 2, 3, 4, 5), **options):
    return write_corruptions(root, lambda *_: (1, 2, 3), corruptions, severities, [3], **options)


def test_corruptions_are_found_as_unpacked_together_or_by_archive(tmp_path):
    corrupted(tmp_path / "noise", "shot_noise", "gaussian_noise")
    corrupted(tmp_path, "fog", "spatter", "rain", severities=[1, 4, 5, 6])
    (tmp_path / "fog" / "2").mkdir()
    release = open_release(SUITES["imagenet_c"], tmp_path)
    assert names_of(release) == [
        *(f"gaussian_noise/{severity}" for severity in range(1, 6)),
        *(f"shot_noise/{severity}" for severity in range(1, 6)),
        "fog/1", "fog/4", "fog/5",
        "spatter/1", "spatter/4", "spatter/5",
    ]  # fmt: skip
    assert release.notes == (
        "not scored: rain, which ImageNet-C does not have",
        "not scored: fog/6, which is not a severity",
        "not scored: spatter/6, which is not a severity",
    )
    assert answers_of(release.parts[0].open()) == {validation_name(1): [3]}
    with pytest.raises(DataError, match=r"ImageNet-C-bar has a folder per .* It contains fog, noi"):
        open_release(SUITES["imagenet_c_bar"], tmp_path)
    with pytest.raises(DataError, match="There is no such folder"):
        open_release(SUITES["imagenet_c"], tmp_path / "nothing")
    corrupted(tmp_path / "noise", "fog")
    with pytest.raises(DataError, match=r"fog is in .* and in .*noise/fog"):
        open_release(SUITES["imagenet_c"], tmp_path)


def test_corrupted_files_that_were_not_cropped_are_refused(tmp_path):
    corrupted(tmp_path, "fog", severities=[1], size=(500, 375))
    (part,) = open_release(SUITES["imagenet_c"], tmp_path).parts
    with pytest.raises(DataError, match=r"squares of 224 px.*Received: 500 x 375 px in .*fog/1/"):
        part.open()


def test_a_set_that_tensorflow_datasets_lacks_needs_a_folder():
    with pytest.raises(DataError, match="ImageNet-C is not in TensorFlow Datasets"):
        open_release(SUITES["imagenet_c"], None)


# TensorFlow Datasets: its own builders and features, with images of ours


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """Prepares a dataset from {key: features}."""
    monkeypatch.setattr(tfds, "builder", partial(tfds.builder, data_dir=tmp_path))

    def prepare(name, split, examples):
        builder = tfds.builder(name, file_format="tfrecord")
        monkeypatch.setattr(
            type(builder), "_split_generators", lambda *_: {split: iter(examples.items())}
        )
        builder.download_and_prepare()

    return prepare


def record(label, name="a.jpg", key="label", **others):
    return {"image": io.BytesIO(jpeg()), key: label, "file_name": name, **others}


def jpeg():
    file = io.BytesIO()
    Image.new("RGB", (224, 224), (9, 9, 9)).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        ("imagenet_a", "imagenet_a"),
        ("imagenet_r", "imagenet_r"),
        ("imagenet_sketch", "imagenet_sketch"),
        ("imagenet_v2", "imagenet_v2/matched-frequency"),
    ],
)
def test_sets_of_tensorflow_datasets_declare_all_classes(prepared, suite, name):
    among = SUITES[suite].among or tuple(range(1000))
    examples = {str(i): record(WNIDS[index]) for i, index in enumerate(among[-2:])}
    prepared(name, "test", examples)
    found = opened(suite, None)
    assert (found.source.size, len(found.source.classes)) == (2, 1000)
    right = sorted(int(found.answers[found.source.example(i)[1], 0]) for i in range(2))
    assert right == list(among[-2:])
    expected = {i for i in range(1000)} & set(among)
    assert set(found.answers[:, 0].tolist()) - {-1} == expected
    assert found.notes == ()


def test_reassessed_labels_of_tensorflow_datasets(tmp_path, prepared):
    labels = {2: [5], 4: [], 50_000: [9, 3]}
    examples = {
        str(number): record(
            WNIDS[0], validation_name(number), "original_label", real_label=own
        )
        for number, own in labels.items()
    }  # fmt: skip
    prepared("imagenet2012_real", "validation", examples)
    folder = tmp_path / "imagenet2012_real" / "1.0.0"
    for data in ("imagenet2012_real", folder):
        source, answers = open_reassessed(data)
        found = {source.example(i)[1] + 1 for i in range(source.size)}
        assert found == set(labels)
        assert {n: sorted(set(answers[n - 1]) - {-1}) for n in found} == {
            n: sorted(own) for n, own in labels.items()
        }
    with pytest.raises(DataError, match="looks like ImageNet-ReaL"):
        refuse_suite_source(open_source("imagenet2012_real"), 1000, None)


def test_generated_corruptions_are_those_that_were_prepared(prepared):
    with pytest.raises(DataError, match="No configuration of imagenet2012_corrupted has been"):
        open_release(SUITES["imagenet_c"], "imagenet2012_corrupted")
    prepared("imagenet2012_corrupted/fog_3", "validation", {"a": record(WNIDS[7])})
    release = open_release(SUITES["imagenet_c"], "tfds:imagenet2012_corrupted:3.1.0")
    assert names_of(release) == ["fog/3"]
    assert not release.is_published
    assert "differs from the published files" in release.notes[0]
    found = release.parts[0].open()
    assert found.answers[found.source.example(0)[1], 0] == 7


# What plain accuracy refuses


@pytest.mark.parametrize(
    ("data", "suite"),
    [
        ("imagenet_a", "imagenet_a=imagenet_a"),
        ("tfds:imagenet_r:0.2.0", "imagenet_r=tfds:imagenet_r:0.2.0"),
        ("imagenet2012_real", "imagenet_real=imagenet2012_real"),
        ("imagenet2012_corrupted/fog_3", "imagenet_c=imagenet2012_corrupted"),
    ],
)
def test_names_of_sets_are_refused_with_the_command_to_use(data, suite):
    with pytest.raises(DataError, match=f"--suite {suite}, or in Python"):
        refuse_suite_data(data)
    for other in ("imagenet2012", "imagenet_sketch", "imagenet_v2", "cifar10"):
        refuse_suite_data(other)


@pytest.mark.parametrize("inside", ["", "fog", "fog/3", "snow"])
def test_folders_of_corruptions_are_refused(tmp_path, inside):
    root = tmp_path / "my sets"
    corrupted(root, "fog", "snow", severities=[2, 3])
    with pytest.raises(DataError, match=f"looks like ImageNet-C, .*'imagenet_c={root}', or"):
        refuse_suite_data(root / inside)
    corrupted(tmp_path / "bar", "sparkles", severities=[1])
    with pytest.raises(DataError, match="looks like ImageNet-C-bar"):
        refuse_suite_data(tmp_path / "bar")
    corrupted(tmp_path / "c" / "blur", "glass_blur", severities=[1])
    with pytest.raises(DataError, match="looks like ImageNet-C,"):
        refuse_suite_data(tmp_path / "c")


def test_photographs_of_weather_are_no_corruptions(tmp_path):
    write(tmp_path, {f"{name}/{i}.jpg": PIXELS for name in ("fog", "snow", "sun") for i in "12"})
    refuse_suite_data(tmp_path)
    refuse_suite_data(tmp_path / "fog")
    write(tmp_path, {"years/2020/a.jpg": PIXELS, "3/a.jpg": PIXELS})
    refuse_suite_data(tmp_path)
    refuse_suite_data(tmp_path / "3")
    with pytest.raises(DataError, match="no such file or folder"):  # what opening it reports
        evaluate(None, tmp_path / "4")
    with pytest.raises(DataError, match="Received: data of type list"):
        evaluate(None, ["imagenet_a"])


def source_of(classes, name="photos"):
    class Fake:
        pass

    fake = Fake()
    fake.classes, fake.name = tuple(classes), name
    return fake


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_the_200_classes_are_recognized_unless_the_model_has_only_these(name):
    among = [WNIDS[index] for index in SUITES[name].among]
    with pytest.raises(DataError, match=rf"looks like {SUITES[name].title}.*--suite {name}=photos"):
        refuse_suite_source(source_of(among), 1000, None)
    refuse_suite_source(source_of(among), 200, among)
    refuse_suite_source(source_of(among[1:]), 1000, None)
    refuse_suite_source(source_of(WNIDS), 1000, None)


def test_accuracy_and_validation_refuse_them(tmp_path):
    among = SUITES["imagenet_r"].among
    write(tmp_path / "r", {f"val/{WNIDS[index]}/a.jpg": PIXELS for index in among})
    write(tmp_path / "all", {f"{name}/{i}.jpg": PIXELS for name in WNIDS[:300] for i in "12"})
    recipe = recipe_for("finetune_small", "convnext_tiny")
    for data in (tmp_path / "r", "imagenet_r"):
        with pytest.raises(DataError, match="looks like ImageNet-R"):
            evaluate(color_model()[0], data)
        with pytest.raises(DataError, match="looks like ImageNet-R"):
            open_training_data(tmp_path / "all", data, recipe)


def test_a_thousand_numbers_are_recognized_unless_they_are_the_names():
    numbers = sorted(map(str, range(1000)))
    with pytest.raises(DataError, match=r"looks like ImageNet-V2.*sorted as text"):
        refuse_suite_source(source_of(numbers), 1000, None)
    refuse_suite_source(source_of(numbers), 1000, numbers)


def test_prepared_folders_of_tensorflow_datasets_are_recognized(tmp_path):
    for name in ("imagenet_r", "others"):
        folder = tmp_path / name / "0.2.0"
        write_tfrecords(folder / "a.tfrecord", [example(PIXELS, 3)])
        (folder / "classes.txt").write_text("\n".join(WNIDS))
    with pytest.raises(DataError, match="looks like ImageNet-R"):
        refuse_suite_source(open_source(tmp_path / "imagenet_r" / "0.2.0"), 1000, None)
    refuse_suite_source(open_source(tmp_path / "others" / "0.2.0"), 1000, None)

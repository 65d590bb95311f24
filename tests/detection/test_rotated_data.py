"""Folders of rotated objects, their faults, tiles, and scenes that are read in parts."""

import json

import numpy as np
import pytest
import shapely
from PIL import Image

from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.detection import open_rotated, write_tiles
from keras_convnext.detection.rotated.objects import DOTA, RotatedObject
from keras_convnext.detection.rotated.polygons import polygon_overlaps
from keras_convnext.detection.rotated.scenes import Scene, size_of
from keras_convnext.detection.rotated.tiles import Tile, cut, objects_in, tiles_of
from keras_convnext.detection.yolo_names import names_in_yaml
from keras_convnext.pictures import open_image

RANDOM = np.random.default_rng(0)
SQUARE = "10 10 30 10 30 20 10 20"


def dota(folder, labels, side=100, split="train"):
    """Writes images of one color, whose label files have these texts."""
    for kind in ("images", "labelTxt"):
        (folder / split / kind).mkdir(parents=True, exist_ok=True)
    for name, text in labels.items():
        Image.new("RGB", (side, side)).save(folder / split / "images" / f"{name}.png")
        if text is not None:
            (folder / split / "labelTxt" / f"{name}.txt").write_text(text)
    return folder


def test_folders_of_dota(tmp_path):
    text = f"imagesource:GoogleEarth\ngsd:0.15\n{SQUARE} ship 0\n\n{SQUARE} plane 1\n"
    folder = dota(tmp_path, {"P1": text, "P2": f"{SQUARE} helicopter\n"})
    dota(tmp_path, {"P3": ""}, split="val")
    found = open_rotated(folder, "train")
    assert found.classes == DOTA["1.0"]
    assert len(found.classes) == 15
    first, second = found.pictures
    points = (10.0, 10, 30, 10, 30, 20, 10, 20)
    assert first.objects == (RotatedObject(6, points, 0), RotatedObject(0, points, 1))
    assert (first.name, first.height, first.width) == ("P1", 100, 100)
    assert second.objects == (RotatedObject(14, points, 0),)
    assert found.summary() == ("DOTA: 2 images, 3 objects, 1 difficult, 0 images without objects")
    assert open_rotated(folder, "validation", found.classes).counts()["images without objects"] == 1
    with pytest.raises(NoSuchSplitError, match="'test', such as test/images"):
        open_rotated(folder, "test")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("ship", "container-crane"), DOTA["1.5"]),
        (("ship", "airport"), DOTA["2.0"]),
        (("ship", "buoy in the sea"), ("buoy in the sea", "ship")),
    ],
)
def test_classes_are_found(names, expected, tmp_path):
    folder = dota(tmp_path, {"P1": "".join(f"{SQUARE} {name} 0\n" for name in names)})
    assert open_rotated(folder, "train").classes == expected
    (folder / "classes.txt").write_text("airport\nbuoy in the sea\ncontainer-crane\nship\n")
    assert len(open_rotated(folder, "train").classes) == 4


def test_folders_of_yolo(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (200, 100)).save(tmp_path / "images" / "train" / f"{name}.png")
    (tmp_path / "labels" / "train" / "a.txt").write_text("1 0.1 0.1 0.5 0.1 0.5 0.2 0.1 0.2\n")
    with pytest.raises(DataError, match=r"no list of classes: add data.yaml"):
        open_rotated(tmp_path, "train")
    (tmp_path / "data.yaml").write_text(
        "path: .\nnames:\n  0: plane  # comment\n  1: ship\nnc: 2\n"
    )
    found = open_rotated(tmp_path, "train")
    assert (found.kind, found.classes) == ("YOLO-OBB", ("plane", "ship"))
    np.testing.assert_allclose(
        found.pictures[0].objects[0].points, [20, 10, 100, 10, 100, 20, 20, 20]
    )
    assert found.pictures[1].objects == ()
    # Another list, as that of a model: by name, not by index.
    (own,) = open_rotated(tmp_path, "train", ["ship", "buoy"]).pictures[0].objects
    assert own.label == 0
    with pytest.raises(DataError, match=r"Line 1: unknown class 1; the classes are 0\. .*a\.txt"):
        open_rotated(tmp_path, "train", ["plane", "buoy"])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [plane, 'ship']", ("plane", "ship")),
        ("names: [plane,\n  ship, ]\nnc: 2", ("plane", "ship")),
        ("nc: 2\nnames:\n- plane\n- ship\nval: x", ("plane", "ship")),
        ('names:\n  - "plane"\n\n  - ship', ("plane", "ship")),
    ],
)
def test_names_in_yaml(text, names, tmp_path):
    (tmp_path / "data.yaml").write_text(text)
    assert names_in_yaml(tmp_path / "data.yaml") == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 2", "no line `names:`"),
        ("names: {0: a}", "Line 1: not a list"),
        ("names: [a", "the list does not end"),
        ("names:\n  1: a", "Line 2: class 0 is missing before it"),
        ("names:\n  a: !!python/object:os.system", "Line 2: not a name"),
        ("names:\n", "no names follow"),
    ],
)
def test_broken_yaml_is_refused(text, message, tmp_path):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        names_in_yaml(tmp_path / "data.yaml")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2 3 ship 0", "8 coordinates are expected: 1 2 3 ship 0"),
        ("1 2 3 4 5 6 7 nan ship 0", "8 coordinates are expected"),
        (SQUARE, "the name of the class is missing"),
        (f"{SQUARE} boat 0", "unknown class boat; the classes are plane, ship"),
        (
            "210 10 230 10 230 20 210 20 ship 0",
            "the object is outside of the image, which has 100 x 100 px",
        ),
        ("10 10 30 20 30 10 10 20 ship 0", "the sides of the quadrilateral cross"),
        ("10 10 3e9 10 30 20 10 20 ship 0", "points are more than 1,000,000 px away"),
    ],
)
def test_faults_name_file_and_line(line, message, tmp_path):
    folder = dota(tmp_path, {"P1": f"{SQUARE} ship 0\n{line}\n"})
    with pytest.raises(DataError, match=f"Line 2: {message}") as error:
        open_rotated(folder, "train", ["plane", "ship"])
    assert "labelTxt/P1.txt" in str(error.value)
    if "expected" in message or "missing" in message:
        return
    found = open_rotated(folder, "train", ["plane", "ship"], skip_broken=True)
    assert found.tolerated == {"broken objects skipped": 1}
    assert len(found.pictures[0].objects) == 1


def test_missing_parts_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        open_rotated(tmp_path / "none", "train")
    folder = dota(tmp_path / "one", {"P1": None})
    with pytest.raises(DataError, match=r"label file .*P1.txt is missing \(file: .*P1.png"):
        open_rotated(folder, "train")
    assert open_rotated(folder, "train", needs_labels=False).counts()["objects"] == 0
    (folder / "train" / "images" / "P1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="not an image that can be read"):
        open_rotated(folder, "train", needs_labels=False)
    names = [*DOTA["1.0"][:9], "shipp"]
    folder = dota(tmp_path / "two", {"P1": "".join(f"{SQUARE} {name} 0\n" for name in names)})
    with pytest.raises(DataError, match=r"Line 10: the class 'shipp' is not in DOTA"):
        open_rotated(folder, "train")


def test_mutated_labels_are_read_or_refused(tmp_path):
    lines = [f"{SQUARE} ship 0", "5.5 6 30 4 33 20 10 22 plane 1"]
    original = ("imagesource:x\ngsd:1\n" + "\n".join(lines) + "\n").encode()
    folder = dota(tmp_path, {"P1": ""})
    file = folder / "train" / "labelTxt" / "P1.txt"
    refused = read = 0
    for _ in range(1000):
        content = bytearray(original)
        for _ in range(RANDOM.integers(1, 4)):
            start = int(RANDOM.integers(len(content)))
            kind = RANDOM.integers(3)
            if kind == 0:
                content[start] = RANDOM.integers(256)
            elif kind == 1:
                del content[start : start + int(RANDOM.integers(1, 9))]
            else:
                content[start:start] = RANDOM.choice([b" ", b"\n", b"-", b"9", b"e", b"inf", b"\0"])
        file.write_bytes(content)
        try:
            (picture,) = open_rotated(folder, "train", ["plane", "ship"]).pictures
        except DataError as error:
            refused += "P1.txt" in str(error)
            continue
        read += 1
        for each in picture.objects:
            assert np.isfinite(each.points).all()
            assert 0 <= each.label < 2
    assert refused + read == 1000  # all messages name the file
    assert min(refused, read) > 50


def test_tiles_cover_a_scene_as_the_devkit_has_them():
    assert [tile.left for tile in next(tiles_of(300, 1100, 1024, 512))] == [0, 76]
    assert [tile.left for tile in next(tiles_of(300, 1536, 1024, 512))] == [0, 512]
    assert [tile.left for tile in next(tiles_of(300, 2700, 1024, 200))] == [0, 824, 1648, 1676]
    assert [row[0].top for row in tiles_of(1025, 1100, 1024, 512)] == [0, 1]
    assert list(tiles_of(10, 20, 32, 0)) == [[Tile(0, 0, 32)]]
    assert Tile(76, 512, 1024).name("P0001") == "P0001__1__76___512"
    with pytest.raises(ValueError, match=r"overlap must be in 0..1023"):
        next(tiles_of(9, 9, 1024, 1024))


def tiled(points, difficulty=0):
    scene = [RotatedObject(3, tuple(map(float, points)), difficulty)]
    return objects_in(Tile(100, 0, 100), 200, 400, scene)


def test_whole_objects_are_moved():
    points = (110.9, 10.2, 150, 10, 150, 40, 110, 40)
    expected = (10.0, 10, 50, 10, 50, 40, 10, 40)
    assert tiled(points, 1) == [RotatedObject(3, expected, 1)]


def test_objects_outside_and_without_area_are_left_out():
    assert tiled((10, 10, 90, 10, 90, 40, 10, 40)) == []
    assert tiled((110, 10, 150, 10, 150, 10, 110, 10)) == []
    assert tiled((60, 10, 100, 10, 100, 40, 60, 40)) == []  # touches the tile


@pytest.mark.parametrize(
    ("left", "right", "difficulty", "found"),
    [(90, 190, 0, 0), (90, 190, 1, 1), (60, 140, 0, 2), (65, 180, 1, 2), (65, 182, 1, 1)],
)
def test_clipped_objects_with_four_points(left, right, difficulty, found):
    # The tile begins at 100; of the last two, it has 69.6% and 70.1%.
    expected = (1.0, 10, right - 100, 10, right - 100, 40, 1, 40)
    own = tiled((left, 10, right, 10, right, 40, left, 40), difficulty)
    assert own == [RotatedObject(3, expected, found)]


def test_clipped_objects_with_five_points():
    # A diamond with its left corner outside: the two points on the border of the tile become one.
    (found,) = tiled((95, 50, 130, 20, 165, 50, 130, 80))
    assert found.difficulty == 0
    assert found.points == (1.0, 50, 30, 20, 65, 50, 30, 80)


def test_clipped_objects_with_other_numbers_of_points_are_left_out():
    assert tiled((60, 50, 110, 40, 60, 30, 50, 40)) == []  # a triangle remains
    assert tiled((150, -20, 240, 50, 150, 120, 60, 50)) == []  # an octagon


def test_clipped_objects_equal_those_of_shapely():
    objects = []
    for _ in range(200):
        center, sides = RANDOM.uniform(0, 300, 2), RANDOM.uniform(5, 90, 2)
        angle = RANDOM.uniform(-3, 3)
        along = np.array([np.cos(angle), np.sin(angle)]) * sides[0] / 2
        across = np.array([-np.sin(angle), np.cos(angle)]) * sides[1] / 2
        points = np.stack([-along - across, along - across, along + across, across - along])
        points += center
        if RANDOM.random() < 0.5:
            points = points[::-1]
        objects.append(RotatedObject(0, tuple(points.ravel()), 0))
    compared = 0
    for row in tiles_of(300, 300, 128, 50):
        for tile in row:
            found = objects_in(tile, 300, 300, objects)
            assert [tuple(each) for each in found] == devkit(tile, 300, 300, objects)
            compared += len(found)
    assert compared > 500


def devkit(tile, height, width, objects):
    """The rules of DOTA_devkit, with shapely."""
    right, bottom = (min(start + tile.size, side - 1) for start, side in
                     ((tile.left, width), (tile.top, height)))  # fmt: skip
    window, offset = shapely.box(tile.left, tile.top, right, bottom), (tile.left, tile.top)
    found = []
    for each in objects:
        points = np.array(each.points).reshape(4, 2)
        whole = shapely.Polygon(points)
        part = whole.intersection(window)
        if window.contains(whole):
            found.append((0, tuple(np.trunc(points - offset).ravel()), each.difficulty))
        elif part.area > 0:
            corners = np.array(shapely.geometry.polygon.orient(part).exterior.coords)[:-1]
            if len(corners) == 5:
                sides = np.linalg.norm(np.roll(corners, -1, 0) - corners, axis=1)
                at = int(sides.argmin())
                middle = (corners[at] + corners[(at + 1) % 5]) / 2
                corners = [middle if i == at else corners[i] for i in range(5) if i != (at + 1) % 5]
            if len(corners) != 4:
                continue
            turns = [np.roll(corners, -turn, 0) for turn in range(4)]
            best = min(turns, key=lambda own: ((own - points) ** 2).sum())
            inside = np.clip(np.trunc(best - offset), 1, tile.size)
            found.append((0, tuple(inside.ravel()), 0 if part.area / whole.area > 0.7 else 2))
    return found


def test_polygons_overlap_as_shapely_says():
    angles = np.sort(RANDOM.uniform(0, 2 * np.pi, (60, 4)), axis=1)
    points = np.stack([np.cos(angles), np.sin(angles)], -1) * RANDOM.uniform(5, 30, (60, 1, 1))
    points += RANDOM.uniform(0, 40, (60, 1, 2))  # convex: on circles
    points[::2] = points[::2, ::-1]
    shapes = shapely.polygons(points)
    shared = shapely.area(shapely.intersection(shapes[:, None], shapes[None]))
    union = shapely.area(shapes)[:, None] + shapely.area(shapes)[None] - shared
    np.testing.assert_allclose(polygon_overlaps(points, points), shared / union, atol=1e-9)
    far = polygon_overlaps(points + 1e6, points + 1e6)
    np.testing.assert_allclose(far, shared / union, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA"])
def test_scenes_in_png_are_read_in_parts(mode, tmp_path, monkeypatch):
    noise = RANDOM.integers(0, 256, (90, 70, 3), np.uint8)
    noise[30:60] = np.arange(70, dtype=np.uint8)[:, None]  # for other filters of PNG
    image = Image.fromarray(noise).convert(mode)
    path = tmp_path / "scene.png"
    image.save(path)
    expected = np.asarray(open_image(path))
    with Scene(path) as scene:
        assert (scene.height, scene.width) == size_of(path) == (90, 70)
        scene._stream.at_once = 7
        np.testing.assert_array_equal(scene.band(5, 30), expected[5:35])
        np.testing.assert_array_equal(scene.band(20, 30), expected[20:50])
        assert len(scene._rows) == 30
        np.testing.assert_array_equal(scene.band(70, 30), expected[70:])


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".png"])
def test_other_scenes_are_read_at_once(suffix, tmp_path):
    path = tmp_path / f"scene{suffix}"
    noise = RANDOM.integers(0, 256, (40, 30, 3), np.uint8)
    image = Image.fromarray(noise)
    if suffix == ".png":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)  # 16 bits
    image.save(path)
    with Scene(path) as scene:
        assert scene._stream is None
        np.testing.assert_array_equal(scene.band(10, 50), np.asarray(open_image(path))[10:])


def test_damaged_scenes_are_refused(tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(RANDOM.integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    content = path.read_bytes()
    for end in (60, 900, len(content) - 30):
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match=r"scene\.png"), Scene(path) as scene:
            scene.band(0, 40)
    path.write_bytes(content[:16] + b"\x7f" * 8 + content[24:])
    with pytest.raises(DataError, match="1 to 2,147,483,648 pixels"):
        Scene(path)
    with pytest.raises(DataError, match="No such file"):
        Scene(tmp_path / "none.png")


def test_tiles_are_written_and_continued(tmp_path):
    source = dota(tmp_path / "scenes", {"P1": f"{SQUARE} ship 0\n", "P2": ""})
    dota(source, {"P3": f"{SQUARE} plane 1\n"}, side=40, split="val")
    target, calls = tmp_path / "tiles", []
    done = write_tiles(
        source, target, size=64, overlap=20, workers=1, progress=lambda *n: calls.append(n)
    )
    assert done == (3, 9, 2)
    assert calls == [(1, 3), (2, 3), (3, 3)]
    found = open_rotated(target, "train")
    assert found.counts() == {
        "images": 8,
        "objects": 1,
        "difficult": 0,
        "images without objects": 7,
    }
    assert (target / "classes.txt").read_text().splitlines() == list(DOTA["1.0"])
    (picture,) = open_rotated(target, "validation").pictures
    assert picture.name == "P3__1__0___0"
    assert (picture.height, picture.width) == (64, 64)  # padded
    text = (target / "val" / "labelTxt" / "P3__1__0___0.txt").read_text()
    assert text == "10.0 10.0 30.0 10.0 30.0 20.0 10.0 20.0 plane 1\n"
    # A call that was interrupted before the last scene, within a line.
    journal = target / "tiles.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 4
    journal.write_text("".join(lines[:3]) + lines[3][:4])
    missing = json.loads(lines[3])[1]
    for path in target.rglob(f"{missing}__*"):
        path.unlink()
    calls.clear()
    assert (
        write_tiles(
            source, target, size=64, overlap=20, workers=1, progress=lambda *n: calls.append(n)
        )
        == done
    )
    assert calls == [(3, 3)]
    assert open_rotated(target, "train").counts()["images"] == 8
    with pytest.raises(DataError, match="tiles of other scenes, or of other settings"):
        write_tiles(source, target, size=64, overlap=21)
    with pytest.raises(DataError, match="has other files in it"):
        write_tiles(source, source, size=64, overlap=20)
    with pytest.raises(ValueError, match="size must be at least 32"):
        write_tiles(source, tmp_path / "x", size=8)
    assert cut(np.ones((10, 20, 3), np.uint8), Tile(0, 0, 32)).sum() == 600

"""Shows that a detector learns: draws shapes, and pictures of what was found in them.

Commands, which take about 25 minutes on two shared cores:

    python benchmarks/detection.py draw shapes
    keras-convnext train --recipe detect_small --model convnext_atto --data shapes --output run \\
        --set start=none --set epochs=32 --set learning_rate=1e-3 --set layer_decay=1 \\
        --set drop_path_rate=0 --set warmup_epochs=1 --set batch_size=8 --set device_batch=8 \\
        --set shortest=128 --set longest=128 --set crop_from= --set scale=128,128 \\
        --set channels=64 --set hidden=256 --set before=200 --set regions=64 \\
        --set proposals=200 --set tested=200 --set evaluation_updates=200 --set save_updates=50
    keras-convnext evaluate shapes --weights run/final.keras --split validation --json
    python benchmarks/detection.py show shapes run/final.keras

The first one draws 200 pictures of 128 px to train on, and 50 others to validate on, with one to
three circles, squares and triangles each. The heads are narrower than the published ones.
`results/detection` has what the commands wrote: `log.csv`, `scores.json` and `found.jpg`.

Photographs have many more classes and sizes of objects. These commands, which take about 25 minutes
too, train on 80 photographs of COCO 2017 with 731 objects of all its classes, and find boxes in
them and in 79 others. PHOTOS has COCO's layout, and is not part of this repository:

    keras-convnext train --recipe detect_small --model convnext_atto --data PHOTOS --output run \\
        --set start=none --set masks=false --set epochs=40 --set learning_rate=5e-4 \\
        --set layer_decay=1 --set drop_path_rate=0 --set horizontal_flip=0 --set warmup_epochs=2 \\
        --set batch_size=2 --set device_batch=2 --set shortest=320 --set longest=533 \\
        --set crop_from= --set scale=533,320 --set channels=64 --set hidden=256 --set before=500 \\
        --set regions=128 --set proposals=300 --set tested=300 --set evaluation_updates=400 \\
        --set save_updates=200
    keras-convnext evaluate PHOTOS --weights run/final.keras --split train --json
    keras-convnext evaluate PHOTOS --weights run/final.keras --split validation --json

What they wrote is in `results/detection/photographs`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

RESULTS = Path(__file__).parent / "results" / "detection"
NAMES = ("circle", "square", "triangle")
CATEGORIES = [{"id": 10 * (index + 1), "name": name} for index, name in enumerate(NAMES)]
_SHOWN = 12  # pictures


def polygon_of(name: str, x: float, y: float, radius: float) -> list[float]:
    """Returns the corners (x1, y1, x2, y2, ...) of a shape."""
    corners = {"circle": 24, "square": 4, "triangle": 3}[name]
    angles = np.arange(corners) * 2 * np.pi / corners + (np.pi / 4 if corners == 4 else -np.pi / 2)
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
    return points.round(2).ravel().tolist()


def draw(
    folder: Path, count: int, side: int = 96, seed: int = 0, most: int = 3
) -> tuple[Path, dict]:
    """Writes pictures, and `annotations.json` beside them; returns its path and content."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        noise = random.integers(0, 60, (side // 8, side // 8, 3), np.uint8)
        picture = Image.fromarray(noise).resize((side, side))
        drawing = ImageDraw.Draw(picture)
        taken: list[tuple[float, float, float]] = []
        for _ in range(random.integers(1, most + 1)):
            radius = random.uniform(0.1, 0.2) * side
            x, y = random.uniform(radius + 1, side - radius - 1, 2)
            if any(abs(x - a) < radius + b and abs(y - c) < radius + b for a, c, b in taken):
                continue
            taken.append((x, y, radius))
            category = CATEGORIES[random.integers(3)]
            polygon = polygon_of(category["name"], x, y, radius)
            color = tuple(int(v) for v in random.integers(120, 256, 3))
            points = np.reshape(polygon, (-1, 2))
            drawing.polygon([tuple(p) for p in points], fill=color)
            first, last = points.min(0), points.max(0)
            annotations.append({
                "id": len(annotations) + 1, "image_id": index, "category_id": category["id"],
                "bbox": [*first.tolist(), *(last - first).tolist()], "iscrowd": 0,
                "segmentation": [polygon], "area": float(np.prod(last - first)),
            })  # fmt: skip
        name = f"{index:04}.png"
        picture.save(folder / name)
        images.append({"id": index, "file_name": name, "height": side, "width": side})
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    path = folder / "annotations.json"
    path.write_text(json.dumps(content))
    return path, content


def show(data: Path, weights: Path, target: Path) -> None:
    """Draws what a detector finds in the first validation pictures: boxes, masks and names."""
    from keras_convnext import load_model
    from keras_convnext.detection import detect

    model = load_model(weights)
    tiles = []
    for path in sorted((data / "val").glob("*.png"))[:_SHOWN]:
        pixels = np.asarray(Image.open(path))
        found = detect(model, pixels, scale=(128, 128))
        shown = pixels.astype(float)
        best = np.flatnonzero(found.scores > 0.5)
        for index in best:
            mask = found.mask(index)
            shown[mask] = 0.5 * shown[mask] + 0.5 * np.array([255, 255, 255])
        tile = Image.fromarray(shown.astype(np.uint8)).resize((256, 256))
        drawing = ImageDraw.Draw(tile)
        for index in best:
            box = (2 * found.boxes[index]).tolist()
            drawing.rectangle(box, outline="white")
            text = f"{NAMES[found.labels[index]]} {100 * found.scores[index]:.0f}%"
            drawing.text((box[0], max(box[1] - 11, 0)), text, fill="white")
        tiles.append(np.asarray(tile))
    rows = [np.concatenate(tiles[i : i + 4], axis=1) for i in range(0, len(tiles), 4)]
    target.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(target, quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw", help="draw the pictures")
    drawing.add_argument("folder", type=Path)
    showing = commands.add_parser("show", help="draw what was found")
    showing.add_argument("folder", type=Path)
    showing.add_argument("weights", type=Path)
    chosen = parser.parse_args()
    if chosen.command == "draw":
        draw(chosen.folder / "train", 200, side=128, seed=0)
        draw(chosen.folder / "val", 50, side=128, seed=1)
    else:
        show(chosen.folder, chosen.weights, RESULTS / "found.jpg")


if __name__ == "__main__":
    main()

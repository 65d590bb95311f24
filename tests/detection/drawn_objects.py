"""Pictures of drawn shapes with COCO's annotations."""

import json

import numpy as np
from PIL import Image, ImageDraw

NAMES = ("circle", "square", "triangle")
CATEGORIES = [{"id": 10 * (index + 1), "name": name} for index, name in enumerate(NAMES)]


def polygon_of(name, x, y, radius):
    """Corners (x1, y1, x2, y2, ...) of a shape."""
    corners = {"circle": 24, "square": 4, "triangle": 3}[name]
    angles = np.arange(corners) * 2 * np.pi / corners + (np.pi / 4 if corners == 4 else -np.pi / 2)
    points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)
    return points.round(2).ravel().tolist()


def draw(folder, count, side=96, seed=0, most=3):
    """Writes pictures, and `annotations.json` beside them; returns its path and content."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for index in range(count):
        noise = random.integers(0, 60, (side // 8, side // 8, 3), np.uint8)
        picture = Image.fromarray(noise).resize((side, side))
        drawing = ImageDraw.Draw(picture)
        taken = []
        for _ in range(random.integers(1, most + 1)):
            radius = random.uniform(0.1, 0.2) * side
            x, y = random.uniform(radius + 1, side - radius - 1, 2)
            if any(abs(x - a) < radius + b and abs(y - c) < radius + b for a, c, b in taken):
                continue
            taken.append((x, y, radius))
            category = CATEGORIES[random.integers(3)]
            polygon = polygon_of(category["name"], x, y, radius)
            color = tuple(int(v) for v in random.integers(120, 256, 3))
            drawing.polygon([tuple(p) for p in np.reshape(polygon, (-1, 2))], fill=color)
            points = np.reshape(polygon, (-1, 2))
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

import re
from pathlib import Path

from keras_convnext.complexity import parts
from keras_convnext.variants import VARIANTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def test_the_table_of_models_is_that_of_the_data():
    rows = [
        f"| {variant.name} | {', '.join(map(str, variant.depths))} "
        f"| {', '.join(map(str, variant.dims))} "
        f"| {sum(part.parameters for part in parts(variant)):,} "
        f"| {sum(part.macs for part in parts(variant)) / 1e9:.2f} |"
        for variant in VARIANTS.values()
    ]
    assert "\n".join(rows) in README


def test_the_layout_is_that_of_the_package():
    listed = set(re.findall(r"^  (\w+(?:\.py|/)) ", README, flags=re.MULTILINE))
    folder = ROOT / "keras_convnext"
    present = {
        path.name + "/" * path.is_dir()
        for path in folder.iterdir()
        if not path.name.startswith("_")
    }
    assert listed == present - {"py.typed"}


def test_an_import_points_down_the_layout():
    rooms = [room.rstrip("/").removesuffix(".py") for room in re.findall(
        r"^  (\w+(?:\.py|/)) ", README, flags=re.MULTILINE
    )]  # fmt: skip
    upward = []
    for path in (ROOT / "keras_convnext").rglob("*.py"):
        room = path.relative_to(ROOT / "keras_convnext").parts[0].removesuffix(".py")
        imported = re.findall(
            r"^\s*(?:from|import) keras_convnext\.(\w+)", path.read_text("utf-8"), re.MULTILINE
        )
        if room.startswith("__"):
            continue
        upward += [
            f"{room} imports {other}"
            for other in imported
            if rooms.index(other) < rooms.index(room)
        ]
    assert upward == []

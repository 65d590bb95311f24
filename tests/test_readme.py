import re
from pathlib import Path

from keras_convnext import __version__, list_weights
from keras_convnext.complexity import parts
from keras_convnext.pretrained.timm_rows import TIMM_TAGS
from keras_convnext.variants import VARIANTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def test_the_table_of_models_is_that_of_the_data():
    tags = ("imagenet", "imagenet22k_ft_384")
    published = {(row.model, row.tag): row.top1 for row in list_weights()}
    of_papers = [
        name
        for name, each in VARIANTS.items()
        if len(each.depths) == 4
        and each.overlap is None
        and ((name, "imagenet") in published or each.grn)
    ]
    sizes = dict.fromkeys(name.partition("_")[2] for name in of_papers)
    rows = []
    for size in sizes:
        both = [VARIANTS.get(f"{kind}_{size}") for kind in ("convnext", "convnextv2")]
        first = next(filter(None, both))
        cells = [size, ", ".join(map(str, first.depths)), ", ".join(map(str, first.dims))]
        cells.append(f"{sum(part.macs for part in parts(first)) / 1e9:.2f}")
        for variant in both:
            if variant is None:
                cells += [""] * 3
                continue
            assert (variant.depths, variant.dims) == (first.depths, first.dims)
            cells.append(f"{sum(part.parameters for part in parts(variant)) / 1e6:,.1f}")
            cells += [str(published.get((variant.name, tag)) or "") for tag in tags]
        rows.append(f"| {' | '.join(cells)} |")
    assert [row for row in rows if row not in README] == []  # pytest prints these whole
    assert "\n".join(rows) in README


def test_each_tag_of_published_classifiers_is_named():
    named = set(re.findall(r"`\"?(\w+)\"?`", README))
    assert {row.tag for row in list_weights() if not row.head} - named - TIMM_TAGS.keys() == set()


def test_the_layout_is_that_of_the_package():
    listed = set(re.findall(r"^  (\w+(?:\.py|/)) ", CONTRIBUTING, flags=re.MULTILINE))
    folder = ROOT / "keras_convnext"
    present = {
        path.name + "/" * path.is_dir()
        for path in folder.iterdir()
        if not path.name.startswith("_")
    }
    assert listed == present - {"py.typed"}


def test_an_import_points_down_the_layout():
    rooms = [room.rstrip("/").removesuffix(".py") for room in re.findall(
        r"^  (\w+(?:\.py|/)) ", CONTRIBUTING, flags=re.MULTILINE
    )]  # fmt: skip
    upward = []
    for path in (ROOT / "keras_convnext").rglob("*.py"):
        room = path.relative_to(ROOT / "keras_convnext").parts[0].removesuffix(".py")
        for_types_alone = r"^if TYPE_CHECKING:\n(?:    .*\n)+"
        code = re.sub(for_types_alone, "", path.read_text("utf-8"), flags=re.MULTILINE)
        imported = re.findall(
            r"^\s*(?:from|import) keras_convnext(?:\.| import )(\w+)", code, re.MULTILINE
        )
        if room.startswith("__"):
            continue
        upward += [
            f"{room} imports {other}"
            for other in imported
            if rooms.index(other) < rooms.index(room)
        ]
    assert upward == []


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^version: (.*)$", citation, flags=re.MULTILINE) == [__version__]

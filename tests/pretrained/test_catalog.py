import re
from pathlib import Path

import pytest
import torch_reference
from typer.testing import CliRunner

import keras_convnext
from keras_convnext import cli, list_weights
from keras_convnext.builders import BUILDERS
from keras_convnext.pretrained.catalog import CATALOG, TAGS, find
from keras_convnext.pretrained.catalog_row import SOURCES
from keras_convnext.pretrained.classifier_rows import CLASSIFIERS, COCO_LOGITS
from keras_convnext.pretrained.detector_rows import DETECTORS
from keras_convnext.pretrained.segmenter_rows import SEGMENTERS
from keras_convnext.pretrained.v2_rows import V2, V2_COCO_LOGITS
from keras_convnext.variants import VARIANTS

PAGE = Path(__file__).parents[2] / "weights" / "README.md"


def cli_run(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


def test_it_holds_the_official_checkpoints():
    official = {row.file for row in CLASSIFIERS if row.source == "official"}
    without_ema = {row.file for row in CLASSIFIERS if row.tag == "imagenet_no_ema"}
    assert len(official - without_ema) == 24
    assert len(official & without_ema) == 3
    assert {row.model for row in CATALOG if row.tag == "imagenet"} == set(VARIANTS) - {
        "convnext_cifar", "convnext_large_mlp", "convnext_xxlarge", "convnextv2_cifar",
        "convnextv2_small",
    }  # fmt: skip


def test_it_holds_the_26_files_of_v2_and_their_copies():
    official = [row for row in V2 if row.source.startswith("official_v2_")]
    copies = [row for row in V2 if row.source == "huggingface"]
    assert len({row.url for row in official}) == len(copies) == 26
    assert {(row.model, row.tag) for row in official} == {(row.model, row.tag) for row in copies}
    assert sum(row.tag == "fcmae" for row in official) == 8
    for row in V2:
        assert row.license.name == "CC-BY-NC-4.0"
        assert not row.license.is_open
        assert row.classes == (None if row.tag == "fcmae" else 1000)
        assert row.size == int((re.findall(r"_ft_(\d+)$", row.tag) or ["224"])[0])
        assert row.model.rpartition("_")[2] in row.file
        assert VARIANTS[row.model].grn
    assert find("convnextv2_huge", "imagenet22k_ft_512")[0].url == (
        "https://dl.fbaipublicfiles.com/convnext/convnextv2/im22k/convnextv2_huge_22k_512_ema.pt"
    )
    assert find("convnextv2_atto", "fcmae")[0].url == (
        "https://dl.fbaipublicfiles.com/convnext/convnextv2/pt_only/convnextv2_atto_1k_224_fcmae.pt"
    )
    assert len(V2_COCO_LOGITS) == 18
    assert V2_COCO_LOGITS.keys() == {row.file for row in official if row.classes}


def test_rows_are_sound():
    assert len({(row.model, row.tag, row.source) for row in CLASSIFIERS}) == len(CLASSIFIERS)
    for row in CLASSIFIERS:
        assert row.model in VARIANTS
        assert row.tag in TAGS
        assert row.source in SOURCES
        assert row.size == {"cifar10": 32}.get(row.tag, 384 if row.tag.endswith("_384") else 224)
        own = {"imagenet22k": 21841, "dinov3": None, "cifar10": 10}
        assert row.classes == own.get(row.tag, 1000)
        assert row.file.endswith((".pth", ".safetensors"))
        assert row.model.rpartition("_")[2] in row.file
        assert ("384" in row.file) == (row.size == 384)
        assert row.top1 is None or 75 < row.top1 < (96 if row.tag == "cifar10" else 88)
        highest = 100 if row.tag == "cifar10" else 99  # five guesses at ten classes hit more
        assert row.top5 is None or row.top1 < row.top5 < highest
        first = find(row.model, row.tag)[0]
        if row.top1 and first.top1:
            assert abs(row.top1 - first.top1) < 0.1
    files = {(row.file, row.model) for row in CLASSIFIERS}
    assert len(files) == len({file for file, _ in files})
    assert COCO_LOGITS.keys() <= {row.file for row in CATALOG}


# Of timm's 103 tags, those without a row, and why.
WITHOUT_A_ROW = {
    "convnext_zepto_rms.ra4_e3600_r224_in1k": "RMS norm",
    "convnext_zepto_rms_ols.ra4_e3600_r224_in1k": "RMS norm",
    "convnext_atto_rms.untrained": "no weights",
    "convnextv2_small.untrained": "no weights",
    "convnext_tiny_hnf.a2h_in1k": "norm before the pooling",
    "test_convnext.r160_in1k": "approximate GELU",
    "test_convnext2.r160_in1k": "approximate GELU",
    "test_convnext3.r160_in1k": "SiLU, kernels of several sizes",
}


LICENSES_OF_TIMM = {
    "Apache-2.0": "apache-2.0",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "DINOv3 License": "dinov3-license",
    "FAIR Noncommercial Research License": "fair-noncommercial-research-license",
}


def test_every_tag_of_timm_has_a_row_with_its_facts():
    torch_reference.declare_torchvision_operators()
    from timm.models.convnext import default_cfgs

    theirs = {f"{name}.{tag}": cfg for name, cfgs in default_cfgs.items()
              for tag, cfg in cfgs.cfgs.items()}  # fmt: skip
    assert len(theirs) == 103
    rows = {row.stem: row for row in CATALOG if row.source in ("huggingface", "timm_hub")}
    assert theirs.keys() - rows.keys() == WITHOUT_A_ROW.keys()
    assert rows.keys() <= theirs.keys()
    for name, row in rows.items():
        cfg = theirs[name]
        assert row.model == name.partition(".")[0]
        assert row.classes == (cfg.num_classes or None), name
        assert row.size == cfg.input_size[1]
        assert row.pixels == (cfg.mean, cfg.std)
        assert row.interpolation == cfg.interpolation
        assert row.is_embedding == (cfg.num_classes in (640, 768, 1024))
        assert LICENSES_OF_TIMM[row.license.name] == cfg.license, name
        if row.source == "timm_hub" and row.tag != "imagenet":
            crop = 0 if cfg.crop_mode == "squash" else cfg.crop_pct
            assert row.crop_share == crop, name
            assert row.tag == name.partition(".")[2] or row.tag == "eupe"
        if row.author == "LAION":
            assert row.tag.startswith("clip_")


def test_facts_of_rows():
    of_clip = find("convnext_xxlarge", "clip_laion2b_soup")[0]
    assert (of_clip.epsilon, of_clip.author, of_clip.crop_share) == (1e-5, "LAION", 1.0)
    assert find("convnext_tiny", "eupe")[0].author == "Meta AI"
    assert find("convnext_tiny", "in12k")[0].author == "Ross Wightman"
    assert find("convnext_tiny", "imagenet")[0].crop_share == 0.875
    assert find("convnext_base", "imagenet_384")[0].crop_share == 0
    assert find("convnextv2_tiny", "imagenet")[0].author == "Meta AI and KAIST"


def test_segmenters():
    """The figures are those of the READMEs of both publishers."""
    assert len(SEGMENTERS) == 17
    assert len({(row.model, row.tag, row.source) for row in SEGMENTERS}) == 17
    for row in SEGMENTERS:
        assert row.tag in TAGS
        assert row.head == "upernet"
        assert row.model.removeprefix("upernet_") in BUILDERS
        assert row.model.rpartition("_")[2] in row.file
        assert row.size == (640 if "_22k" in row.tag else 512)
        if row.source != "transformers":
            assert f"{row.size}x{row.size}" in row.file
            assert 45 < dict(row.figures)["mIoU"] < dict(row.figures)["mIoU ms"] < 55
    openmmlab, transformers = find("upernet_convnext_tiny", "ade20k_openmmlab")
    assert openmmlab.url == (
        "https://download.openmmlab.com/mmsegmentation/v0.5/convnext/"
        "upernet_convnext_tiny_fp16_512x512_160k_ade20k/"
        "upernet_convnext_tiny_fp16_512x512_160k_ade20k_20220227_124553-cad485de.pth"
    )
    assert openmmlab.known_digest == "sha256:cad485de"
    assert transformers.url == (
        "https://huggingface.co/openmmlab/upernet-convnext-tiny/resolve/main/pytorch_model.bin"
    )
    (official,) = find("upernet_convnext_tiny", "ade20k")
    assert official.url == (
        "https://dl.fbaipublicfiles.com/convnext/ade20k/upernet_convnext_tiny_1k_512x512.pth"
    )
    assert official.expected_bytes == 4 * 60_242_636


def test_detectors():
    """The figures are those of the READMEs of both publishers."""
    assert len(DETECTORS) == 11
    assert len({(row.model, row.tag) for row in DETECTORS}) == 11
    assert dict(DETECTORS[-1].figures) == {"AP50": 74.49}  # of rotated boxes
    for row in DETECTORS[:-1]:
        assert row.tag in TAGS
        assert row.model.partition("_convnext")[0] == row.head
        assert row.file.startswith(row.head)
        assert ("_22k_" in row.file) == row.tag.endswith("_22k")
        assert 40 < dict(row.figures)["mask AP"] < dict(row.figures)["box AP"] < 56
    (own,) = find("cascade_mask_rcnn_convnext_small", "coco_openmmlab")
    name = "cascade_mask_rcnn_convnext-s_p4_w7_fpn_giou_4conv1f_fp16_ms-crop_3x_coco"
    assert own.url == (
        f"https://download.openmmlab.com/mmdetection/v2.0/convnext/{name}/"
        f"{name}_20220510_201004-3d24f5a4.pth"
    )
    assert own.known_digest == "sha256:3d24f5a4"
    (official,) = find("mask_rcnn_convnext_tiny", "coco")
    assert official.url == (
        "https://dl.fbaipublicfiles.com/convnext/coco/mask_rcnn_convnext_tiny_1k_3x.pth"
    )


def test_where_the_files_lie_and_what_is_known_of_them():
    tiny, of_openmmlab, of_timm = find("convnext_tiny", "imagenet")
    assert tiny.url == "https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224_ema.pth"
    assert (tiny.bytes, tiny.known_digest[:14]) == (114_414_741, "sha384:f277194")
    assert len(tiny.known_digest) == len("sha384:") + 96
    assert of_openmmlab.known_digest == "sha256:18abde00"
    assert of_timm.url == (
        "https://huggingface.co/timm/convnext_tiny.fb_in1k/resolve/main/model.safetensors"
    )
    assert of_timm.known_digest is None
    assert find("convnext_atto", "imagenet")[0].known_digest == "sha256:01bb0f51"
    assert find("convnext_small", "imagenet")[0].known_digest is None


def test_a_tag_that_a_network_lacks_is_answered_with_those_it_has():
    with pytest.raises(ValueError, match=r"'imagenet', 'imagenet22k', 'imagenet22k_ft'") as told:
        keras_convnext.ConvNeXtXLarge(weights="imagenet_384")
    assert "weights='imagenet_384'" in str(told.value)
    with pytest.raises(ValueError, match="convnext has no published weights of this name"):
        keras_convnext.ConvNeXt((1,), (8,), weights="imagenet")


def test_weights_without_a_classifier_are_for_a_model_without_one():
    with pytest.raises(ValueError, match="include_top=False"):
        keras_convnext.ConvNeXtTiny(weights="dinov3")


def test_listing():
    assert [row.tag for row in list_weights("convnext_atto")] == ["imagenet"]
    all_rows, with_copies = list_weights(), list_weights(copies=True)
    assert len({(row.model, row.tag) for row in all_rows}) == len(all_rows)
    assert with_copies == list(CATALOG)
    assert {row.source for row in all_rows} == {
        "official", "timm", "huggingface", "shipped", "official_ade20k", "mmsegmentation",
        "official_coco", "mmdetection", "mmrotate",
        "timm_hub", "official_v2_1k", "official_v2_22k", "official_v2_fcmae",
    }  # fmt: skip


def test_the_builders_name_the_tags_that_they_have():
    for name, builder in BUILDERS.items():
        told = re.search(r"^Published weights: (.*)\.$", builder.__doc__, re.MULTILINE)[1]
        assert set(re.findall('"([a-z0-9_]+)"', told)) == {row.tag for row in list_weights(name)}


def test_the_page_of_the_weights_is_the_table():
    """`keras-convnext list --files --markdown` makes it, and the next one with `--robustness`."""
    tables = []
    for kind in ("--files", "--robustness"):
        printed = cli_run("list", kind, "--markdown").stdout
        tables.append([line.rstrip() for line in printed.splitlines() if line.strip()])
    assert len(tables[0]) == 8 + len(CATALOG)  # with four headings
    page = PAGE.read_text().splitlines()
    assert [line for line in page if line.startswith("|")] == tables[0] + tables[1]
    for tag, meaning in TAGS.items():
        assert f"- `{tag}`: {meaning}" in page


def test_what_is_shipped_needs_no_connection_and_no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", str(tmp_path / "cache"))
    (row,) = find("convnext_cifar", "cifar10")
    assert (PAGE.parent / row.url).stat().st_size == row.bytes < 16e6
    model = keras_convnext.ConvNeXtCifar()
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 10))
    by_its_file = keras_convnext.load_model(PAGE.parent / row.url)
    assert by_its_file.input_shape == model.input_shape
    verified = cli_run("verify", "cifar10", "--model", "convnext_cifar")
    assert verified.exit_code == 0, verified.output
    assert not (tmp_path / "cache").exists()

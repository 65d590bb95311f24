import pytest

from keras_convnext import ConvNeXt, ConvNeXtIsotropic
from keras_convnext.training.layer_decay import GROUPINGS, decay_steps, layer_groups


def groups_of(model):
    paths = [weight.path for weight in model.trainable_weights]
    return {path.rpartition("/")[0]: group for path, group in zip(paths, layer_groups(paths))}


def test_small_to_xlarge_have_the_official_groups():
    groups = groups_of(ConvNeXt(depths=(3, 3, 27, 3), dims=(4, 4, 4, 4), classes=2))
    blocks = [groups[f"stages_2_blocks_{block}/dwconv"] for block in range(27)]
    assert blocks == [3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10, 10,
                      11, 11, 11]  # fmt: skip
    outside = {name: group for name, group in groups.items() if "blocks" not in name}
    assert outside == {
        "stem_conv": 0, "stem_norm": 0, "downsample_1_norm": 2, "downsample_1_conv": 2,
        "downsample_2_norm": 3, "downsample_2_conv": 3, "downsample_3_norm": 12,
        "downsample_3_conv": 12, "norm": 13, "head": 13,
    }  # fmt: skip
    for stage, group in ((0, 1), (1, 2), (3, 12)):
        assert {groups[f"stages_{stage}_blocks_{block}/norm"] for block in range(3)} == {group}
        assert groups[f"stages_{stage}_blocks_0"] == group


def test_tiny_leaves_the_groups_up_to_stage_4_empty():
    groups = groups_of(ConvNeXt(depths=(3, 3, 9, 3), dims=(4, 4, 4, 4), classes=2))
    assert [groups[f"stages_2_blocks_{block}/pwconv1"] for block in (0, 3, 8)] == [3, 4, 5]
    assert groups["stages_3_blocks_0/pwconv1"] == 12


@pytest.mark.parametrize(("depth", "expected"), [(18, [1, 1, 2, 3]), (36, [1, 1, 1, 2])])
def test_isotropic_blocks_are_spread_over_twelve(depth, expected):
    groups = groups_of(ConvNeXtIsotropic(depth=depth, dim=4, classes=2))
    blocks = [groups[f"blocks_{block}/dwconv"] for block in range(depth)]
    assert blocks[:4] == expected
    assert blocks == sorted(blocks)
    assert set(blocks) == set(range(1, 13))
    assert (groups["stem_conv"], groups["norm"], groups["head"]) == (0, 13, 13)


def test_a_trunk_inside_another_model_and_a_head_of_ones_own_are_told_apart():
    paths = ["model/convnext_tiny/stem_conv/kernel", "model/dense/kernel", "classifier/bias"]
    assert layer_groups(paths) == [0, 13, 13]


@pytest.mark.parametrize("prefix", ["", "left_", "model/", "model/left_"])
def test_blocks_that_are_one_layer_and_trunks_with_a_name_are_in_the_same_groups(prefix):
    expected = {
        "stem_conv/kernel": 0,
        "stages_0_blocks_1/pwconv1/kernel": 1,
        "downsample_1_conv/kernel": 2,
        "downsample_2_norm/gamma": 3,
        "stages_2_blocks_5/gamma": 4,
        "stages_3_blocks_2/norm/beta": 12,
        "norm/gamma": 13,
        "head/kernel": 13,
    }
    assert layer_groups([prefix + path for path in expected]) == list(expected.values())
    isotropic = [f"{prefix}blocks_{block}/dwconv/kernel" for block in range(12)]
    other = "right_stages_2_blocks_26/gamma"
    assert layer_groups([*isotropic, other])[:12] == list(range(1, 13))


PATHS = [
    "stem_conv/kernel", "stages_0_blocks_2/gamma", "downsample_1_norm/gamma",
    "stages_1_blocks_0/pwconv1/kernel", "downsample_2_conv/kernel", "stages_2_blocks_2/gamma",
    "stages_2_blocks_3/gamma", "stages_2_blocks_8/gamma", "downsample_3_conv/bias",
    "stages_3_blocks_1/norm/beta", "norm3/gamma", "decode_head/kernel",
]  # fmt: skip
OTHERS = [f"stages_{stage}_blocks_2/gamma" for stage in (0, 1, 3)]


@pytest.mark.parametrize(
    ("grouping", "expected"),
    [  # the exponents of OpenMMLab's constructor with num_layers=6, and of ConvNeXt V2's "single"
        ("layer_wise", [7, 6, 5, 5, 4, 4, 3, 2, 1, 1, 0, 0]),
        ("stage_wise", [7, 6, 7, 5, 7, 4, 4, 4, 7, 3, 0, 0]),
        ("single", [18, 16, 15, 15, 12, 10, 9, 4, 3, 2, 0, 0]),
        ("official", [13, 12, 11, 11, 10, 10, 9, 8, 1, 1, 0, 0]),
    ],
)
def test_tiny_is_grouped_as_in_the_published_runs(grouping, expected):
    assert decay_steps([*PATHS, *OTHERS], grouping)[: len(PATHS)] == expected


@pytest.mark.parametrize(
    ("grouping", "expected"),
    [
        ("layer_wise", [13, 12, 11, 11, 10, 10, 9, 8, 1, 1, 0, 0]),
        ("stage_wise", [13, 12, 13, 11, 13, 10, 10, 10, 13, 9, 0, 0]),
        ("single", [36, 34, 33, 33, 30, 28, 27, 22, 3, 2, 0, 0]),
    ],
)
def test_small_to_xlarge_are_grouped_as_in_the_published_runs(grouping, expected):
    paths = [*PATHS, *OTHERS, "stages_2_blocks_26/gamma"]
    assert decay_steps(paths, grouping)[: len(PATHS)] == expected


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_an_isotropic_network_has_groups(grouping):
    paths = ["stem_conv/kernel", *(f"blocks_{block}/gamma" for block in range(18)), "head/kernel"]
    steps = decay_steps(paths, grouping)
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == 0 < steps[-2]

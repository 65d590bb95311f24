"""The groups of layers for layer-wise learning rate decay."""

import re
from collections.abc import Callable, Sequence

GROUPS = 12  # groups 0 (stem) to 12 are below the head's group
HEAD = GROUPS + 1

_BLOCK = re.compile(r"(?:stages_(\d+)_)?blocks_(\d+)[/_]")  # "_" in the roadmap's networks
_DOWNSAMPLE = re.compile(r"downsample_(\d+)_(?:conv|norm)/")
_STEM = re.compile(r"stem_(?:conv|norm)/")


def layer_groups(paths: Sequence[str]) -> list[int]:
    """Returns the group of each variable, from 0 for the stem to 13 for the final norm and head.

    As in the official code, the stem is in group 0, stage 1 in 1, stage 2 in 2, block `b` of stage
    3 in `3 + b // 3` and stage 4 in 12, each including the downsampling before it. This also holds
    for Tiny, whose nine blocks in stage 3 are in groups 3 to 5, so that groups 6 to 11 are empty.
    Isotropic networks, which have no groups in the official code, use `1 + 12 b // d` for block `b`
    of `d`. All other layers, such as a user's own head, are in the head's group.

    Args:
        paths: sequence of str. Paths of all variables, such as `"stages_2_blocks_5/dwconv/kernel"`.
            Layer names may be preceded by the name of a trunk, as in `"left_stem_conv/kernel"`.

    Returns:
        List of int.

    References:
        facebookresearch/ConvNeXt, optim_factory.py, `get_num_layer_for_convnext`.
    """
    blocks = [match.groups() for path in paths if (match := _BLOCK.search(path))]
    depth = max((int(block) + 1 for stage, block in blocks if stage is None), default=1)
    return [_group(path, depth) for path in paths]


def decay_steps(paths: Sequence[str], grouping: str = "official") -> list[int]:
    """Returns how many times layer-wise decay applies to the learning rate of each variable.

    It is 0 for the head and for all layers that are not part of a trunk, and also for the norms
    that a dense task puts behind the stages.

    Args:
        paths: sequence of str. Paths of all variables, as in `layer_groups`.
        grouping: str. One of `GROUPINGS`: "official", for classifiers, as in `layer_groups`;
            "single", where each block is a group, as for ConvNeXt V2; "layer_wise", for detection;
            or "stage_wise", for segmentation. The last two have 6 or, with more than nine blocks
            in stage 3, 12 groups.

    Returns:
        List of int.

    References:
        facebookresearch/ConvNeXt-V2, optim_factory.py; facebookresearch/ConvNeXt, object_detection
        and semantic_segmentation, `LearningRateDecayOptimizerConstructor`.
    """
    return GROUPINGS[grouping](paths)


def _official(paths: Sequence[str]) -> list[int]:
    return [HEAD - group for group in layer_groups(paths)]


def _single(paths: Sequence[str]) -> list[int]:
    depths = _depths(paths)
    starts = {stage: sum(depths[each] for each in depths if each < stage) for stage in depths}
    last = sum(depths.values()) + 1

    def number(path: str) -> int:
        if match := _BLOCK.search(path):
            return starts[int(match[1] or 0)] + int(match[2]) + 1
        if match := _DOWNSAMPLE.search(path):
            return starts[int(match[1])] + 1
        return 1 if _STEM.search(path) else last

    return [last - number(path) for path in paths]


def _layer_wise(paths: Sequence[str]) -> list[int]:
    last = _dense_groups(paths)

    def number(path: str) -> int:
        if match := _BLOCK.search(path):
            stage, block = int(match[1] or 0), int(match[2])
            return (1, 2, min(3 + block // 3, last - 1), last)[stage]
        if match := _DOWNSAMPLE.search(path):
            return (2, 3, last)[int(match[1]) - 1]
        return 0 if _STEM.search(path) else last + 1

    return [last + 1 - number(path) for path in paths]


def _stage_wise(paths: Sequence[str]) -> list[int]:
    last = _dense_groups(paths)

    def number(path: str) -> int:
        if match := _BLOCK.search(path):
            return int(match[1] or 0) + 1
        # Downsampling layers are in the lowest group, as in the published runs.
        return 0 if _DOWNSAMPLE.search(path) or _STEM.search(path) else last + 1

    return [last + 1 - number(path) for path in paths]


def _depths(paths: Sequence[str]) -> dict[int, int]:
    """Returns the number of blocks in each stage; those of an isotropic network are stage 0."""
    depths: dict[int, int] = {}
    for path in paths:
        if match := _BLOCK.search(path):
            stage = int(match[1] or 0)
            depths[stage] = max(depths.get(stage, 0), int(match[2]) + 1)
    return depths


def _dense_groups(paths: Sequence[str]) -> int:
    return GROUPS if _depths(paths).get(2, 0) > 9 else 6


GROUPINGS: dict[str, Callable[[Sequence[str]], list[int]]] = {
    "official": _official,
    "single": _single,
    "layer_wise": _layer_wise,
    "stage_wise": _stage_wise,
}


def _group(path: str, isotropic_depth: int) -> int:
    if match := _BLOCK.search(path):
        stage, block = match.groups()
        if stage is None:
            return 1 + GROUPS * int(block) // isotropic_depth
        return {"0": 1, "1": 2, "2": min(3 + int(block) // 3, GROUPS - 1)}.get(stage, GROUPS)
    if match := _DOWNSAMPLE.search(path):
        return {"1": 2, "2": 3}.get(match[1], GROUPS)
    return 0 if _STEM.search(path) else HEAD

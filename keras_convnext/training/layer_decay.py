"""The groups of layers for layer-wise learning rate decay."""

import re
from collections.abc import Sequence

GROUPS = 12  # groups 0 (stem) to 12 are below the head's group
HEAD = GROUPS + 1

_BLOCK = re.compile(r"(?:stages_(\d+)_)?blocks_(\d+)/")
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


def _group(path: str, isotropic_depth: int) -> int:
    if match := _BLOCK.search(path):
        stage, block = match.groups()
        if stage is None:
            return 1 + GROUPS * int(block) // isotropic_depth
        return {"0": 1, "1": 2, "2": min(3 + int(block) // 3, GROUPS - 1)}.get(stage, GROUPS)
    if match := _DOWNSAMPLE.search(path):
        return {"1": 2, "2": 3}.get(match[1], GROUPS)
    return 0 if _STEM.search(path) else HEAD

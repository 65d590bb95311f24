"""Layer-wise decay of the learning rate: which group a layer is in."""

import re
from collections.abc import Sequence

GROUPS = 12  # below the head's; the stem is group 0
HEAD = GROUPS + 1

_BLOCK = re.compile(r"(?:stages_(\d+)_)?blocks_(\d+)/")
_DOWNSAMPLE = re.compile(r"downsample_(\d+)_(?:conv|norm)/")
_STEM = re.compile(r"stem_(?:conv|norm)/")


def layer_groups(paths: Sequence[str]) -> list[int]:
    """Numbers the group of each variable, from 0 at the stem to 13 at the final norm and the head.

    The official rule, for tiny too: the stem is 0, stage 1 is 1, stage 2 is 2, block `b` of stage 3
    is `3 + b // 3` and stage 4 is 12, each with the downsampling before it; tiny's nine blocks in
    stage 3 make groups 3 to 5 and leave those up to 11 empty. Ours, where the official code has
    none: block `b` of an isotropic network of `d` blocks is `1 + 12 b // d`. What is none of these,
    such as a head of the user's own, goes with the head.

    Args:
        paths: sequence of str. Paths of all the variables, as in
            `"stages_2_blocks_5/dwconv/kernel"`. A trunk's own name may precede its layers', as in
            `"left_stem_conv/kernel"`.

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

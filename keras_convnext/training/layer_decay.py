"""Layer-wise decay of the learning rate: which group a layer is in."""

import re
from collections.abc import Sequence

GROUPS = 12  # below the head's; the stem is group 0
HEAD = GROUPS + 1


def layer_groups(paths: Sequence[str]) -> list[int]:
    """Numbers the group of each variable, from 0 at the stem to 13 at the final norm and the head.

    The official rule, for tiny too: the stem is 0, stage 1 is 1, stage 2 is 2, block `b` of stage 3
    is `3 + b // 3` and stage 4 is 12, each with the downsampling before it; tiny's nine blocks in
    stage 3 make groups 3 to 5 and leave those up to 11 empty. Ours, where the official code has
    none: block `b` of an isotropic network of `d` blocks is `1 + 12 b // d`. What is none of these,
    such as a head of the user's own, goes with the head.

    Args:
        paths: sequence of str. Paths of all the variables, as in
            `"stages_2_blocks_5/dwconv/kernel"`.

    References:
        facebookresearch/ConvNeXt, optim_factory.py, `get_num_layer_for_convnext`.
    """
    depth = max((int(block) + 1 for block in _found(r"blocks_(\d+)/", paths)), default=1)
    return [_group(path, depth) for path in paths]


def _found(pattern: str, paths: Sequence[str]) -> list[str]:
    return [match[1] for path in paths if (match := re.search(pattern, path))]


def _group(path: str, isotropic_depth: int) -> int:
    if match := re.search(r"stages_(\d+)_blocks_(\d+)/", path):
        stage, block = map(int, match.groups())
        return {0: 1, 1: 2, 2: min(3 + block // 3, GROUPS - 1)}.get(stage, GROUPS)
    if match := re.search(r"downsample_(\d+)_(conv|norm)/", path):
        return {1: 2, 2: 3}.get(int(match[1]), GROUPS)
    if match := re.search(r"blocks_(\d+)/", path):
        return 1 + GROUPS * int(match[1]) // isotropic_depth
    return 0 if re.search(r"stem_(conv|norm)/", path) else HEAD

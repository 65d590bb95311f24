"""The road from ResNet to ConvNeXt in PyTorch, written from the facts for the tests.

It shares no code with the package. The names of the tensors are torchvision's, where it has them.
"""

import torch
from torch import nn
from torch.nn import functional as F

ORDER = (
    "resnet", "stage_ratio", "patchify", "depthwise", "width", "inverted", "move_up", "kernel_5",
    "kernel_7", "kernel_9", "kernel_11", "gelu", "fewer_activations", "fewer_norms", "layer_norm",
    "final_norm", "bare_downsampling", "downsampling",
)  # fmt: skip
KERNELS = {"kernel_5": 5, "kernel_9": 9, "kernel_11": 11}


class ChannelNorm(nn.LayerNorm):
    def __init__(self, channels):
        super().__init__(channels, eps=1e-6)

    def forward(self, x):
        return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], self.weight, self.bias, self.eps
                            ).permute(0, 3, 1, 2)  # fmt: skip


class Facts:
    """What a step has reached, by its place on the road."""

    def __init__(self, step):
        self.place = ORDER.index(step)
        self.kernel = KERNELS.get(step, 7 if self.after("kernel_7") else 3)
        self.norm = ChannelNorm if self.after("layer_norm") else nn.BatchNorm2d
        self.act = nn.GELU() if self.after("gelu") else nn.ReLU()
        self.biased = self.after("layer_norm")

    def after(self, step):
        return self.place >= ORDER.index(step)

    def conv(self, before, after, kernel=1, stride=1, groups=1):
        return nn.Conv2d(
            before, after, kernel, stride, kernel // 2, groups=groups, bias=self.biased
        )


class Bottleneck(nn.Module):
    def __init__(self, facts, before, planes, stride):
        super().__init__()
        groups = planes if facts.after("depthwise") else 1
        self.act = facts.act
        self.conv1 = facts.conv(before, planes)
        self.bn1 = facts.norm(planes)
        self.conv2 = facts.conv(planes, planes, facts.kernel, stride, groups)
        self.bn2 = facts.norm(planes)
        self.conv3 = facts.conv(planes, 4 * planes)
        self.bn3 = facts.norm(4 * planes)
        self.downsample = None
        if stride != 1 or before != 4 * planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, 4 * planes, 1, stride, bias=False), facts.norm(4 * planes)
            )

    def forward(self, x):
        y = self.act(self.bn1(self.conv1(x)))
        y = self.act(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.act(y + (x if self.downsample is None else self.downsample(x)))


class InvertedBottleneck(nn.Module):
    def __init__(self, facts, before, planes, stride):
        super().__init__()
        wide, self.facts = 4 * planes, facts
        if facts.after("move_up"):
            self.conv1 = facts.conv(before, before, facts.kernel, stride, before)
            self.bn1 = facts.norm(before)
            self.conv2 = facts.conv(before, wide)
        else:
            self.conv1 = facts.conv(before, wide)
            self.bn1 = facts.norm(wide)
            self.conv2 = facts.conv(wide, wide, facts.kernel, stride, wide)
        self.conv3 = facts.conv(wide, planes)
        if not facts.after("fewer_norms"):
            self.bn2, self.bn3 = facts.norm(wide), facts.norm(planes)
        self.downsample = None
        if stride != 1 or before != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, planes, 1, stride, bias=False), facts.norm(planes)
            )

    def forward(self, x):
        own, every = self.facts, not self.facts.after("fewer_activations")
        y = self.bn1(self.conv1(x))
        y = own.act(y) if every else y
        y = self.conv2(y)
        y = self.bn2(y) if hasattr(self, "bn2") else y
        y = self.conv3(own.act(y))
        y = self.bn3(y) if hasattr(self, "bn3") else y
        y = y + (x if self.downsample is None else self.downsample(x))
        return own.act(y) if every else y


class Roadmap(nn.Module):
    """A step.

    Args:
        step: str. Name of the step.
        depths: tuple of int. Blocks per stage.
        planes: int. Width of the first stage.
        classes: int.
        stride: int. Stride of the stem, 4 or 2.
    """

    def __init__(self, step, depths, planes, classes, stride=4):
        super().__init__()
        facts = self.facts = Facts(step)
        if facts.after("patchify"):
            self.conv1 = nn.Conv2d(3, planes, stride, stride)
        elif stride == 4:
            self.conv1 = nn.Conv2d(3, planes, 7, 2, 3, bias=False)
        else:
            self.conv1 = nn.Conv2d(3, planes, 3, 1, 1, bias=False)
        if not facts.after("patchify"):
            self.bn1 = nn.BatchNorm2d(planes)
        elif facts.after("downsampling"):
            self.bn1 = ChannelNorm(planes)
        block = InvertedBottleneck if facts.after("inverted") else Bottleneck
        before = planes
        for stage, depth in enumerate(depths):
            width, blocks = planes * 2**stage, []
            if stage and facts.after("bare_downsampling"):
                down = nn.Sequential()
                if facts.after("downsampling"):
                    down.add_module("norm", ChannelNorm(before))
                down.add_module("conv", nn.Conv2d(before, width, 2, 2))
                self.add_module(f"between{stage}", down)
                before = width
            for index in range(depth):
                strided = stage and not index and not facts.after("bare_downsampling")
                blocks.append(block(facts, before, width, 2 if strided else 1))
                before = width if facts.after("inverted") else 4 * width
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.depths = depths
        self.norm = nn.LayerNorm(before, eps=1e-6) if facts.after("final_norm") else nn.Identity()
        self.fc = nn.Linear(before, classes)

    def forward(self, x):
        x = self.conv1(x)
        x = self.bn1(x) if hasattr(self, "bn1") else x
        if not self.facts.after("patchify"):
            x = F.max_pool2d(F.relu(x), 3, 2, 1)
        for stage in range(len(self.depths)):
            if hasattr(self, f"between{stage}"):
                x = getattr(self, f"between{stage}")(x)
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(self.norm(x.mean((2, 3))))


@torch.no_grad()
def randomize(model, seed=0):
    """Sets random weights and statistics that all affect the output."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.ndim > 1:
            tensor.normal_(generator=generator).mul_(tensor[0].numel() ** -0.5)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim:
            is_scale = name.endswith("weight")
            tensor.normal_(generator=generator).mul_(0.2).add_(1.0 if is_scale else 0.0)
    return model.eval()

"""ConvNeXt in PyTorch, written from the paper for the tests, with the official tensor names.

It shares no code with the package. If timm has the network, the tests also compare with timm.
"""

import itertools
from functools import cache
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

# Names in the different layouts.
LAYER_SCALES = ("gamma", "layer_scale", "layer_scale_parameter")


class ChannelsFirstNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class GRN(nn.Module):
    """Algorithm 1 of ConvNeXt V2's paper; beta and gamma have the official shape."""

    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, x):
        gx = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        nx = gx / (gx.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (x * nx) + self.beta + x


class Block(nn.Module):
    def __init__(self, dim, gamma, kernel_size=7, grn=False, epsilon=1e-6):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size, padding=kernel_size // 2, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=epsilon)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.grn = GRN(4 * dim) if grn else nn.Identity()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.ones(dim)) if gamma else None

    def forward(self, x):
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.grn(F.gelu(self.pwconv1(y))))
        if self.gamma is not None:
            y = self.gamma * y
        return x + y.permute(0, 3, 1, 2)


class Hierarchical(nn.Module):
    def __init__(
        self, depths, dims, classes=1000, gamma=True, patch_size=4, kernel_size=7, grn=False,
        epsilon=1e-6, hidden=None,
    ):  # fmt: skip
        super().__init__()
        stem = nn.Sequential(
            nn.Conv2d(3, dims[0], patch_size, patch_size), ChannelsFirstNorm(dims[0], eps=epsilon)
        )
        downsamples = [
            nn.Sequential(ChannelsFirstNorm(narrow, eps=epsilon), nn.Conv2d(narrow, wide, 2, 2))
            for narrow, wide in itertools.pairwise(dims)
        ]
        self.downsample_layers = nn.ModuleList([stem, *downsamples])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(dim, gamma, kernel_size, grn, epsilon) for _ in range(depth)))
            for depth, dim in zip(depths, dims)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=epsilon)
        self.pre_logits = nn.Linear(dims[-1], hidden) if hidden else None
        self.head = nn.Linear(hidden or dims[-1], classes)

    def maps(self, x):
        maps = []
        for downsample, stage in zip(self.downsample_layers, self.stages):
            x = stage(downsample(x))
            maps.append(x)
        return maps

    def features(self, x):
        return self.norm(self.maps(x)[-1].mean((2, 3)))

    def forward(self, x):
        x = self.features(x)
        return self.head(x if self.pre_logits is None else F.gelu(self.pre_logits(x)))


class Isotropic(nn.Module):
    def __init__(self, depth, dim, classes=1000, gamma=False, patch_size=16, kernel_size=7):
        super().__init__()
        self.stem = nn.Conv2d(3, dim, patch_size, patch_size)
        self.blocks = nn.ModuleList(Block(dim, gamma, kernel_size) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, classes)

    def maps(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return [x]

    def features(self, x):
        return self.norm(self.maps(x)[-1].mean((2, 3)))

    def forward(self, x):
        return self.head(self.features(x))


def network(name, **options):
    """Builds a network by name, with the sizes of the paper's section 3 and timm's models."""
    hierarchical = {
        "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
        "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
        "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
        "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
        "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
        "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
        "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
        "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
        "xlarge": ((3, 3, 27, 3), (256, 512, 1024, 2048)),
        "huge": ((3, 3, 27, 3), (352, 704, 1408, 2816)),
        "xxlarge": ((3, 4, 30, 3), (384, 768, 1536, 3072)),
    }
    isotropic = {"small": (18, 384), "base": (18, 768), "large": (36, 1024)}
    if name in ("convnext_cifar", "convnextv2_cifar"):
        own = {"patch_size": 2, "gamma": False, "kernel_size": 5, "grn": "v2" in name}
        return Hierarchical((2, 3), (128, 256), **{**own, **options})
    if name == "convnext_large_mlp":
        return Hierarchical(*hierarchical["large"], **{"hidden": 1536, **options})
    if name == "convnext_xxlarge":
        options = {"epsilon": 1e-5, **options}
    kind, _, size = name.removeprefix("convnext_").rpartition("_")
    if kind == "isotropic":
        return Isotropic(*isotropic[size], **{"gamma": size == "large", **options})
    if kind == "convnextv2":
        options = {"gamma": False, "grn": True, **options}
    return Hierarchical(*hierarchical[size], **options)


@torch.no_grad()
def randomize(model, seed=0):
    """Sets random weights that all affect the output: layer scales and GRN of order 0.3."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.normal_(generator=generator)
        if name.endswith(LAYER_SCALES) or ".grn." in name:
            parameter.mul_(0.3)
        elif parameter.ndim > 1:
            parameter.mul_(parameter[0].numel() ** -0.5)
        else:
            parameter.mul_(0.1).add_(1.0 if "weight" in name else 0.0)
    return model.eval()


def save(model, path: Path):
    torch.save({"model": model.state_dict()}, path)
    return path


@cache
def declare_torchvision_operators():
    """Declares operators that torchvision, imported by timm, lacks with a CPU build of torch."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms(Tensor a, Tensor b, float c) -> Tensor", "qnms(Tensor a) -> Tensor"):
        if not hasattr(torch.ops.torchvision, operator.split("(")[0]):
            library.define(operator)
    return library


def timm_model(name, state):
    """Builds timm's network of the same name and weights, converted by timm's own filter."""
    declare_torchvision_operators()
    from timm.models import convnext

    model = getattr(convnext, name)(pretrained=False, num_classes=len(state["head.bias"]))
    model.load_state_dict(convnext.checkpoint_filter_fn(dict(state), model))
    return model.eval()

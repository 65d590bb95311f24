"""Makes torchvision importable beside any build of torch, since timm imports it.

Its wheel of the package index does not know a torch without CUDA: two operators are missing then,
which no ConvNeXt calls. Import this module before timm.
"""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    _library = torch.library.Library("torchvision", "FRAGMENT")
    _library.define("nms(Tensor a, Tensor b, float c) -> Tensor")
    _library.define("qnms(Tensor a) -> Tensor")

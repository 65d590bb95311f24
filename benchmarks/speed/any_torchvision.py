"""Makes torchvision, which timm imports, importable with any build of torch.

With a CPU build of torch, torchvision's wheel from PyPI lacks two operators, which ConvNeXt does
not use. Import this module before timm.
"""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    _library = torch.library.Library("torchvision", "FRAGMENT")
    _library.define("nms(Tensor a, Tensor b, float c) -> Tensor")
    _library.define("qnms(Tensor a) -> Tensor")

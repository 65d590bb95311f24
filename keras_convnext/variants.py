"""The networks, one row each.

Hierarchical: Liu et al., "A ConvNet for the 2020s" (arXiv 2201.03545), section 3 and table 9;
isotropic: section 3.3 and table 2. Atto to Nano are smaller networks with the same block, published
by timm. V2: Woo et al., "ConvNeXt V2" (arXiv 2301.00808), section 5 and appendix A.1; its Small is
timm's.
"""

from functools import partial
from typing import NamedTuple


class Variant(NamedTuple):
    """The hyperparameters of one ConvNeXt.

    Args:
        name: str. Name of the model, in Python and on the command line.
        depths: tuple of int. Blocks in each stage.
        dims: tuple of int. Channels in each stage.
        layer_scale: float or None. Initial value of layer scale; None disables it.
        patch_size: int. Side of the stem's patches, in pixels.
        kernel_size: int. Side of the depthwise kernels.
        isotropic: bool. One resolution throughout: no downsampling, and no norm after the stem.
        stddev: float or None. Standard deviation of the initial kernels, except for the head's.
            None means `1 / sqrt(fan_in)`: the official 0.02 equals it at a fan-in of 2,500, and is
            too small for a narrow network, whose signal would vanish.
        size: int. Default side of the images, in pixels.
        epsilon: float. Added to the variance in the norms.
        hidden: int or None. Width of a layer between the final norm and the classifier.
        overlap: int or None. Channels between the two convolutions of a stem whose patches overlap.
        grn: bool. ConvNeXt V2: global response normalization in the blocks, and no layer scale.
    """

    name: str
    depths: tuple[int, ...]
    dims: tuple[int, ...]
    layer_scale: float | None = 1e-6
    patch_size: int = 4
    kernel_size: int = 7
    isotropic: bool = False
    stddev: float | None = 0.02
    size: int = 224
    epsilon: float = 1e-6
    grn: bool = False
    hidden: int | None = None
    overlap: int | None = None

    @property
    def stride(self) -> int:
        """Stride of the last feature map, in pixels."""
        return self.patch_size * 2 ** (len(self.dims) - 1)

    @property
    def min_size(self) -> int:
        """Smallest supported height or width: 32 px for every published network."""
        return 2 * self.patch_size if self.isotropic else self.stride


_v2 = partial(Variant, layer_scale=None, grn=True)

VARIANTS = {
    variant.name: variant
    for variant in (
        #                                  depths           dims                    parameters
        Variant("convnext_atto",           (2, 2, 6, 2),    (40, 80, 160, 320)),      # 3.70 M
        Variant("convnext_femto",          (2, 2, 6, 2),    (48, 96, 192, 384)),      # 5.22 M
        Variant("convnext_pico",           (2, 2, 6, 2),    (64, 128, 256, 512)),     # 9.05 M
        Variant("convnext_nano",           (2, 2, 8, 2),    (80, 160, 320, 640)),     # 15.59 M
        Variant("convnext_tiny",           (3, 3, 9, 3),    (96, 192, 384, 768)),     # 28.59 M
        Variant("convnext_small",          (3, 3, 27, 3),   (96, 192, 384, 768)),     # 50.22 M
        Variant("convnext_base",           (3, 3, 27, 3),   (128, 256, 512, 1024)),   # 88.59 M
        Variant("convnext_large",          (3, 3, 27, 3),   (192, 384, 768, 1536)),   # 197.77 M
        Variant("convnext_xlarge",         (3, 3, 27, 3),   (256, 512, 1024, 2048)),  # 350.20 M
        # The image towers of LAION's CLIP, published by timm: 201.13 M and 846.47 M.
        Variant("convnext_large_mlp", (3, 3, 27, 3), (192, 384, 768, 1536), hidden=1536),
        Variant("convnext_xxlarge", (3, 4, 30, 3), (384, 768, 1536, 3072), epsilon=1e-5),
        # timm's, with overlapping patches
        Variant("convnext_atto_ols",  (2, 2, 6, 2), (40, 80, 160, 320), overlap=24),   # 3.70 M
        Variant("convnext_femto_ols", (2, 2, 6, 2), (48, 96, 192, 384), overlap=24),   # 5.23 M
        Variant("convnext_pico_ols",  (2, 2, 6, 2), (64, 128, 256, 512), overlap=32),  # 9.06 M
        Variant("convnext_nano_ols",  (2, 2, 8, 2), (80, 160, 320, 640), overlap=80),  # 15.65 M
        # Our own, for 32 px images, hence the small patches and kernels: 2.26 M.
        Variant("convnext_cifar", (2, 3), (128, 256), None, 2, 5, stddev=None, size=32),
        # Only the large isotropic network trains with layer scale (official TRAINING.md).
        Variant("convnext_isotropic_small", (18,), (384,),  None, 16, isotropic=True),   # 22.31 M
        Variant("convnext_isotropic_base",  (18,), (768,),  None, 16, isotropic=True),   # 87.08 M
        Variant("convnext_isotropic_large", (36,), (1024,), 1e-6, 16, isotropic=True),   # 305.94 M
        _v2("convnextv2_atto",             (2, 2, 6, 2),    (40, 80, 160, 320)),      # 3.71 M
        _v2("convnextv2_femto",            (2, 2, 6, 2),    (48, 96, 192, 384)),      # 5.23 M
        _v2("convnextv2_pico",             (2, 2, 6, 2),    (64, 128, 256, 512)),     # 9.07 M
        _v2("convnextv2_nano",             (2, 2, 8, 2),    (80, 160, 320, 640)),     # 15.62 M
        _v2("convnextv2_tiny",             (3, 3, 9, 3),    (96, 192, 384, 768)),     # 28.64 M
        _v2("convnextv2_small",            (3, 3, 27, 3),   (96, 192, 384, 768)),     # 50.32 M
        _v2("convnextv2_base",             (3, 3, 27, 3),   (128, 256, 512, 1024)),   # 88.72 M
        _v2("convnextv2_large",            (3, 3, 27, 3),   (192, 384, 768, 1536)),   # 197.96 M
        _v2("convnextv2_huge",             (3, 3, 27, 3),   (352, 704, 1408, 2816)),  # 660.29 M
        # Our own, with the shape of convnext_cifar: 2.27 M.
        _v2("convnextv2_cifar", (2, 3), (128, 256), patch_size=2, kernel_size=5, stddev=None,
            size=32),
    )
}  # fmt: skip

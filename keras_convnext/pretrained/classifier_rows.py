"""The published classifiers, one row per file.

The files are published by facebookresearch/ConvNeXt (README), open-mmlab/mmpretrain
(configs/convnext/README.md) and huggingface/pytorch-image-models (timm/models/convnext.py; its
README for the accuracies of Atto to Nano). "shipped" files are our own and part of the package.

Accuracies are those reported by the row's source: ImageNet-1K validation images (CIFAR-10 test
images for "cifar10"), single crop, resized and cropped as in `preprocessing.load_image` at that
size. For the isotropic networks they are the README's; table 2 of the paper has 79.7, 82.0 and 82.6.
"""

from keras_convnext.pretrained.catalog_row import Checkpoint
from keras_convnext.pretrained.v2_rows import V2_COCO_LOGITS

# Open Model Zoo, models/public/convnext-tiny
_TINY_SHA384 = (
    "sha384:f277194ca9561079ea0519fffc204820922ae46dc865b9def7208cf5993382d6"
    "cced681d3d26f6b70c31bf7cec4aba62"
)

# `weights=` uses the first row of a model and tag. Later rows are copies of it, used if the first
# cannot be downloaded. XLarge has no weights trained on ImageNet-1K alone: its "imagenet" is the
# same file as "imagenet22k_ft".
CLASSIFIERS = (
    # official
    Checkpoint("convnext_tiny",            "imagenet",           "official", "convnext_tiny_1k_224_ema.pth",       1000,  224, 82.1, None, 114_414_741, _TINY_SHA384),
    Checkpoint("convnext_small",           "imagenet",           "official", "convnext_small_1k_224_ema.pth",      1000,  224, 83.1),
    Checkpoint("convnext_base",            "imagenet",           "official", "convnext_base_1k_224_ema.pth",       1000,  224, 83.8),
    Checkpoint("convnext_large",           "imagenet",           "official", "convnext_large_1k_224_ema.pth",      1000,  224, 84.3),
    Checkpoint("convnext_xlarge",          "imagenet",           "official", "convnext_xlarge_22k_1k_224_ema.pth", 1000,  224, 87.0),
    Checkpoint("convnext_isotropic_small", "imagenet",           "official", "convnext_iso_small_1k_224_ema.pth",  1000,  224, 78.7),
    Checkpoint("convnext_isotropic_base",  "imagenet",           "official", "convnext_iso_base_1k_224_ema.pth",   1000,  224, 82.0),
    Checkpoint("convnext_isotropic_large", "imagenet",           "official", "convnext_iso_large_1k_224_ema.pth",  1000,  224, 82.6),
    Checkpoint("convnext_base",            "imagenet_384",       "official", "convnext_base_1k_384.pth",           1000,  384, 85.1),
    Checkpoint("convnext_large",           "imagenet_384",       "official", "convnext_large_1k_384.pth",          1000,  384, 85.5),
    Checkpoint("convnext_tiny",            "imagenet_no_ema",    "official", "convnext_tiny_1k_224.pth",           1000,  224),
    Checkpoint("convnext_small",           "imagenet_no_ema",    "official", "convnext_small_1k_224.pth",          1000,  224),
    Checkpoint("convnext_base",            "imagenet_no_ema",    "official", "convnext_base_1k_224.pth",           1000,  224),
    Checkpoint("convnext_tiny",            "imagenet22k",        "official", "convnext_tiny_22k_224.pth",          21841, 224),
    Checkpoint("convnext_small",           "imagenet22k",        "official", "convnext_small_22k_224.pth",         21841, 224),
    Checkpoint("convnext_base",            "imagenet22k",        "official", "convnext_base_22k_224.pth",          21841, 224),
    Checkpoint("convnext_large",           "imagenet22k",        "official", "convnext_large_22k_224.pth",         21841, 224),
    Checkpoint("convnext_xlarge",          "imagenet22k",        "official", "convnext_xlarge_22k_224.pth",        21841, 224),
    Checkpoint("convnext_tiny",            "imagenet22k_ft",     "official", "convnext_tiny_22k_1k_224.pth",       1000,  224, 82.9),
    Checkpoint("convnext_small",           "imagenet22k_ft",     "official", "convnext_small_22k_1k_224.pth",      1000,  224, 84.6),
    Checkpoint("convnext_base",            "imagenet22k_ft",     "official", "convnext_base_22k_1k_224.pth",       1000,  224, 85.8),
    Checkpoint("convnext_large",           "imagenet22k_ft",     "official", "convnext_large_22k_1k_224.pth",      1000,  224, 86.6),
    Checkpoint("convnext_xlarge",          "imagenet22k_ft",     "official", "convnext_xlarge_22k_1k_224_ema.pth", 1000,  224, 87.0),
    Checkpoint("convnext_tiny",            "imagenet22k_ft_384", "official", "convnext_tiny_22k_1k_384.pth",       1000,  384, 84.1),
    Checkpoint("convnext_small",           "imagenet22k_ft_384", "official", "convnext_small_22k_1k_384.pth",      1000,  384, 85.8),
    Checkpoint("convnext_base",            "imagenet22k_ft_384", "official", "convnext_base_22k_1k_384.pth",       1000,  384, 86.8),
    Checkpoint("convnext_large",           "imagenet22k_ft_384", "official", "convnext_large_22k_1k_384.pth",      1000,  384, 87.5),
    Checkpoint("convnext_xlarge",          "imagenet22k_ft_384", "official", "convnext_xlarge_22k_1k_384_ema.pth", 1000,  384, 87.8),
    # trained by timm
    Checkpoint("convnext_atto",  "imagenet", "timm", "convnext_atto_d2-01bb0f51.pth",  1000,  224, 75.7),
    Checkpoint("convnext_femto", "imagenet", "timm", "convnext_femto_d1-d71d5b4c.pth", 1000,  224, 77.5),
    Checkpoint("convnext_pico",  "imagenet", "timm", "convnext_pico_d1-10ad7f0d.pth",  1000,  224, 79.5),
    Checkpoint("convnext_nano",  "imagenet", "timm", "convnext_nano_d1h-7eb4bdea.pth", 1000,  224, 80.8),
    # Meta's DINOv3, converted by timm
    Checkpoint("convnext_tiny",  "dinov3", "huggingface", "convnext_tiny.dinov3_lvd1689m.safetensors",  None,  224),
    Checkpoint("convnext_small", "dinov3", "huggingface", "convnext_small.dinov3_lvd1689m.safetensors", None,  224),
    Checkpoint("convnext_base",  "dinov3", "huggingface", "convnext_base.dinov3_lvd1689m.safetensors",  None,  224),
    Checkpoint("convnext_large", "dinov3", "huggingface", "convnext_large.dinov3_lvd1689m.safetensors", None,  224),
    # copies of the official files, converted by OpenMMLab
    Checkpoint("convnext_tiny",   "imagenet",           "openmmlab", "convnext-tiny_3rdparty_32xb128_in1k_20220124-18abde00.pth",            1000,  224, 82.05, 95.86),
    Checkpoint("convnext_small",  "imagenet",           "openmmlab", "convnext-small_3rdparty_32xb128_in1k_20220124-d39b5192.pth",           1000,  224, 83.13, 96.44),
    Checkpoint("convnext_base",   "imagenet",           "openmmlab", "convnext-base_3rdparty_32xb128_in1k_20220124-d0915162.pth",            1000,  224, 83.85, 96.74),
    Checkpoint("convnext_large",  "imagenet",           "openmmlab", "convnext-large_3rdparty_64xb64_in1k_20220124-f8a0ded0.pth",            1000,  224, 84.30, 96.89),
    Checkpoint("convnext_xlarge", "imagenet",           "openmmlab", "convnext-xlarge_in21k-pre-3rdparty_64xb64_in1k_20220124-76b6863d.pth", 1000,  224, 86.97, 98.20),
    Checkpoint("convnext_base",   "imagenet_384",       "openmmlab", "convnext-base_3rdparty_in1k-384px_20221219-c8f1dc2b.pth",              1000,  384, 85.10, 97.34),
    Checkpoint("convnext_large",  "imagenet_384",       "openmmlab", "convnext-large_3rdparty_in1k-384px_20221219-6dd29d10.pth",             1000,  384, 85.50, 97.59),
    Checkpoint("convnext_tiny",   "imagenet_no_ema",    "openmmlab", "convnext-tiny_3rdparty_32xb128-noema_in1k_20220222-2908964a.pth",      1000,  224),
    Checkpoint("convnext_small",  "imagenet_no_ema",    "openmmlab", "convnext-small_3rdparty_32xb128-noema_in1k_20220222-fa001ca5.pth",     1000,  224),
    Checkpoint("convnext_base",   "imagenet_no_ema",    "openmmlab", "convnext-base_3rdparty_32xb128-noema_in1k_20220222-dba4f95f.pth",      1000,  224, 83.71, 96.60),
    Checkpoint("convnext_base",   "imagenet22k",        "openmmlab", "convnext-base_3rdparty_in21k_20220124-13b83eec.pth",                   21841, 224),
    Checkpoint("convnext_large",  "imagenet22k",        "openmmlab", "convnext-large_3rdparty_in21k_20220124-41b5a79f.pth",                  21841, 224),
    Checkpoint("convnext_xlarge", "imagenet22k",        "openmmlab", "convnext-xlarge_3rdparty_in21k_20220124-f909bad7.pth",                 21841, 224),
    Checkpoint("convnext_tiny",   "imagenet22k_ft",     "openmmlab", "convnext-tiny_in21k-pre_3rdparty_in1k_20221219-7501e534.pth",          1000,  224, 82.90, 96.62),
    Checkpoint("convnext_small",  "imagenet22k_ft",     "openmmlab", "convnext-small_in21k-pre_3rdparty_in1k_20221219-aeca4c93.pth",         1000,  224, 84.59, 97.41),
    Checkpoint("convnext_base",   "imagenet22k_ft",     "openmmlab", "convnext-base_in21k-pre-3rdparty_32xb128_in1k_20220124-eb2d6ada.pth",  1000,  224, 85.81, 97.86),
    Checkpoint("convnext_large",  "imagenet22k_ft",     "openmmlab", "convnext-large_in21k-pre-3rdparty_64xb64_in1k_20220124-2412403d.pth",  1000,  224, 86.61, 98.04),
    Checkpoint("convnext_xlarge", "imagenet22k_ft",     "openmmlab", "convnext-xlarge_in21k-pre-3rdparty_64xb64_in1k_20220124-76b6863d.pth", 1000,  224, 86.97, 98.20),
    Checkpoint("convnext_tiny",   "imagenet22k_ft_384", "openmmlab", "convnext-tiny_in21k-pre_3rdparty_in1k-384px_20221219-c1182362.pth",    1000,  384, 84.11, 97.14),
    Checkpoint("convnext_small",  "imagenet22k_ft_384", "openmmlab", "convnext-small_in21k-pre_3rdparty_in1k-384px_20221219-96f0bb87.pth",   1000,  384, 85.75, 97.88),
    Checkpoint("convnext_base",   "imagenet22k_ft_384", "openmmlab", "convnext-base_in21k-pre-3rdparty_in1k-384px_20221219-4570f792.pth",    1000,  384, 86.82, 98.25),
    Checkpoint("convnext_large",  "imagenet22k_ft_384", "openmmlab", "convnext-large_in21k-pre-3rdparty_in1k-384px_20221219-6d38dd66.pth",   1000,  384, 87.46, 98.37),
    Checkpoint("convnext_xlarge", "imagenet22k_ft_384", "openmmlab", "convnext-xlarge_in21k-pre-3rdparty_in1k-384px_20221219-b161bc14.pth",  1000,  384, 87.76, 98.55),
    # copies of the official files, converted by timm
    Checkpoint("convnext_tiny",   "imagenet",           "huggingface", "convnext_tiny.fb_in1k.safetensors",                1000,  224),
    Checkpoint("convnext_small",  "imagenet",           "huggingface", "convnext_small.fb_in1k.safetensors",               1000,  224),
    Checkpoint("convnext_base",   "imagenet",           "huggingface", "convnext_base.fb_in1k.safetensors",                1000,  224),
    Checkpoint("convnext_large",  "imagenet",           "huggingface", "convnext_large.fb_in1k.safetensors",               1000,  224),
    Checkpoint("convnext_xlarge", "imagenet",           "huggingface", "convnext_xlarge.fb_in22k_ft_in1k.safetensors",     1000,  224),
    Checkpoint("convnext_tiny",   "imagenet22k",        "huggingface", "convnext_tiny.fb_in22k.safetensors",               21841, 224),
    Checkpoint("convnext_small",  "imagenet22k",        "huggingface", "convnext_small.fb_in22k.safetensors",              21841, 224),
    Checkpoint("convnext_base",   "imagenet22k",        "huggingface", "convnext_base.fb_in22k.safetensors",               21841, 224),
    Checkpoint("convnext_large",  "imagenet22k",        "huggingface", "convnext_large.fb_in22k.safetensors",              21841, 224),
    Checkpoint("convnext_xlarge", "imagenet22k",        "huggingface", "convnext_xlarge.fb_in22k.safetensors",             21841, 224),
    Checkpoint("convnext_tiny",   "imagenet22k_ft",     "huggingface", "convnext_tiny.fb_in22k_ft_in1k.safetensors",       1000,  224),
    Checkpoint("convnext_small",  "imagenet22k_ft",     "huggingface", "convnext_small.fb_in22k_ft_in1k.safetensors",      1000,  224),
    Checkpoint("convnext_base",   "imagenet22k_ft",     "huggingface", "convnext_base.fb_in22k_ft_in1k.safetensors",       1000,  224),
    Checkpoint("convnext_large",  "imagenet22k_ft",     "huggingface", "convnext_large.fb_in22k_ft_in1k.safetensors",      1000,  224),
    Checkpoint("convnext_xlarge", "imagenet22k_ft",     "huggingface", "convnext_xlarge.fb_in22k_ft_in1k.safetensors",     1000,  224),
    Checkpoint("convnext_tiny",   "imagenet22k_ft_384", "huggingface", "convnext_tiny.fb_in22k_ft_in1k_384.safetensors",   1000,  384),
    Checkpoint("convnext_small",  "imagenet22k_ft_384", "huggingface", "convnext_small.fb_in22k_ft_in1k_384.safetensors",  1000,  384),
    Checkpoint("convnext_base",   "imagenet22k_ft_384", "huggingface", "convnext_base.fb_in22k_ft_in1k_384.safetensors",   1000,  384),
    Checkpoint("convnext_large",  "imagenet22k_ft_384", "huggingface", "convnext_large.fb_in22k_ft_in1k_384.safetensors",  1000,  384),
    Checkpoint("convnext_xlarge", "imagenet22k_ft_384", "huggingface", "convnext_xlarge.fb_in22k_ft_in1k_384.safetensors", 1000,  384),
    # ours; weights/cifar10/README.md has how 0.70 was measured
    Checkpoint("convnext_cifar",           "cifar10",            "shipped",  "convnext_cifar_32.safetensors",      10,    32, 93.42, 99.49, 4_015_420, "sha256:dc90dee56217648e76ef58819876940ad67d778b80b01d69aac37876bc79c828", 0.70),
)  # fmt: skip

# The first logits of some files for image 000000039769 of COCO val2017, as published in
# huggingface/transformers, convert_convnext_to_pytorch.py, which compares them with a tolerance of
# 1e-3.
COCO_LOGITS = {
    "convnext_tiny_1k_224_ema.pth":       (-0.1210, -0.6605, 0.1918),
    "convnext_small_1k_224_ema.pth":      (-0.4473, -0.1847, -0.6365),
    "convnext_base_1k_224_ema.pth":       (0.4525, 0.7539, 0.0308),
    "convnext_base_1k_384.pth":           (0.3561, 0.6350, -0.0384),
    "convnext_large_1k_224_ema.pth":      (0.4174, -0.0989, 0.1489),
    "convnext_large_1k_384.pth":          (0.2513, -0.1349, -0.1613),
    "convnext_base_22k_224.pth":          (1.2980, 0.3631, -0.1198),
    "convnext_large_22k_224.pth":         (1.2963, 0.1227, 0.1723),
    "convnext_xlarge_22k_224.pth":        (1.7956, 0.8390, 0.2820),
    "convnext_base_22k_1k_224.pth":       (-0.2822, -0.0502, -0.0878),
    "convnext_base_22k_1k_384.pth":       (-0.5672, -0.0730, -0.4348),
    "convnext_large_22k_1k_224.pth":      (0.2681, 0.2365, 0.6246),
    "convnext_large_22k_1k_384.pth":      (-0.2642, 0.3931, 0.5116),
    "convnext_xlarge_22k_1k_224_ema.pth": (-0.6677, -0.1873, -0.8379),
    "convnext_xlarge_22k_1k_384_ema.pth": (-0.7749, -0.2967, -0.6444),
    **V2_COCO_LOGITS,
}  # fmt: skip

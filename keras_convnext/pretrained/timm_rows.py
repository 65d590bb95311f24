"""The classifiers and image towers that timm trained or converted, one row per file.

Published by huggingface/pytorch-image-models (timm/models/convnext.py), whose names they keep. The
accuracies are those of timm's results-imagenet.csv. `crop` is timm's evaluation at the size of the
last training stage.

Tags of timm that are not here: `convnext_zepto_rms`, `convnext_zepto_rms_ols` and
`convnext_atto_rms` have RMS norms; `convnext_tiny_hnf` has its norm
before the pooling; `test_convnext`, `test_convnext2` and `test_convnext3` have other activations and
kernels and serve timm's tests; `convnextv2_small` has no weights.
"""

from keras_convnext.normalization import CLIP
from keras_convnext.pretrained.catalog_row import Checkpoint

# The values of `weights=` that only these have, and what each stands for.
TIMM_TAGS = {
    "in12k_ft_in1k": "ImageNet-12K, then ImageNet-1K",
    "in12k_ft_in1k_384": "ImageNet-12K, then ImageNet-1K at 384 px",
    "in12k": "ImageNet-12K, 11,821 classes",
    "eupe": "LVD-1689M, distilled from several teachers; no classifier",
    "r384_in12k_ft_in1k": "ImageNet-12K at 384 px, then ImageNet-1K at 384 px",
    "r384_in12k": "ImageNet-12K at 384 px, 11,821 classes",
    "r384_ad_in12k": "another run of `r384_in12k`",
    "clip_laion2b_augreg_ft_in12k_in1k": "CLIP on LAION-2B, with more augmentation and regularization, then ImageNet-12K, then ImageNet-1K",
    "clip_laion2b_augreg_ft_in12k_in1k_384": "CLIP on LAION-2B, with more augmentation and regularization, then ImageNet-12K, then ImageNet-1K at 384 px",
    "clip_laion2b_augreg_ft_in1k": "CLIP on LAION-2B, with more augmentation and regularization, then ImageNet-1K",
    "clip_laiona_augreg_ft_in1k_384": "CLIP on LAION-Aesthetic, with more augmentation and regularization, then ImageNet-1K at 384 px",
    "clip_laion2b_augreg_ft_in12k": "CLIP on LAION-2B, with more augmentation and regularization, then ImageNet-12K, 11,821 classes",
    "clip_laion2b": "CLIP on LAION-2B: the image embedding",
    "clip_laion2b_augreg": "CLIP on LAION-2B, with more augmentation and regularization: the image embedding",
    "clip_laiona": "CLIP on LAION-Aesthetic: the image embedding",
    "clip_laiona_320": "CLIP on LAION-Aesthetic, at 320 px: the image embedding",
    "clip_laiona_augreg_320": "CLIP on LAION-Aesthetic, with more augmentation and regularization, at 320 px: the image embedding",
    "clip_laion2b_soup_ft_in12k_in1k_320": "CLIP on LAION-2B, averaged over runs, then ImageNet-12K, then ImageNet-1K at 320 px",
    "clip_laion2b_soup_ft_in12k_in1k_384": "CLIP on LAION-2B, averaged over runs, then ImageNet-12K, then ImageNet-1K at 384 px",
    "clip_laion2b_augreg_ft_in1k_384": "CLIP on LAION-2B, with more augmentation and regularization, then ImageNet-1K at 384 px",
    "clip_laion2b_soup_ft_in12k_320": "CLIP on LAION-2B, averaged over runs, then ImageNet-12K at 320 px, 11,821 classes",
    "clip_laion2b_augreg_ft_in12k_384": "CLIP on LAION-2B, with more augmentation and regularization, then ImageNet-12K at 384 px, 11,821 classes",
    "clip_laion2b_soup_ft_in12k_384": "CLIP on LAION-2B, averaged over runs, then ImageNet-12K at 384 px, 11,821 classes",
    "clip_laion2b_ft_320": "CLIP on LAION-2B, at 320 px: the image embedding",
    "clip_laion2b_ft_soup_320": "CLIP on LAION-2B, averaged over runs, at 320 px: the image embedding",
    "clip_laion2b_soup_ft_in1k": "CLIP on LAION-2B, averaged over runs, then ImageNet-1K",
    "clip_laion2b_soup_ft_in12k": "CLIP on LAION-2B, averaged over runs, then ImageNet-12K, 11,821 classes",
    "clip_laion2b_soup": "CLIP on LAION-2B, averaged over runs: the image embedding",
    "clip_laion2b_rewind": "CLIP on LAION-2B, a rerun of its end: the image embedding",
}  # fmt: skip

TIMM = (
    # trained on ImageNet-1K
    Checkpoint("convnext_atto_ols",  "imagenet", "timm", "convnext_atto_ols_a2-78d1c8f3.pth",  1000, 224),
    Checkpoint("convnext_femto_ols", "imagenet", "timm", "convnext_femto_ols_d1-246bf2ed.pth", 1000, 224),
    Checkpoint("convnext_pico_ols",  "imagenet", "timm", "convnext_pico_ols_d1-611f0ca7.pth",  1000, 224, crop=0.95),
    Checkpoint("convnext_nano_ols",  "imagenet", "timm", "convnext_nano_ols_d1h-ae424a9a.pth", 1000, 224, crop=0.95),
    Checkpoint("convnext_atto_ols",  "imagenet", "timm_hub", "convnext_atto_ols.a2_in1k.safetensors",  1000, 224),
    Checkpoint("convnext_femto_ols", "imagenet", "timm_hub", "convnext_femto_ols.d1_in1k.safetensors", 1000, 224),
    Checkpoint("convnext_pico_ols",  "imagenet", "timm_hub", "convnext_pico_ols.d1_in1k.safetensors",  1000, 224, crop=0.95),
    Checkpoint("convnext_nano_ols",  "imagenet", "timm_hub", "convnext_nano_ols.d1h_in1k.safetensors", 1000, 224, crop=0.95),
    # trained on ImageNet-12K
    Checkpoint("convnext_tiny",       "in12k_ft_in1k",                            "timm_hub",    "convnext_tiny.in12k_ft_in1k.safetensors",                                       1000, 224, 84.2, crop=0.95),
    Checkpoint("convnext_tiny",       "in12k_ft_in1k_384",                        "timm_hub",    "convnext_tiny.in12k_ft_in1k_384.safetensors",                                   1000, 384),
    Checkpoint("convnext_tiny",       "in12k",                                    "timm_hub",    "convnext_tiny.in12k.safetensors",                                               11821, 224, crop=0.95),
    Checkpoint("convnext_small",      "in12k_ft_in1k",                            "timm_hub",    "convnext_small.in12k_ft_in1k.safetensors",                                      1000, 224, 85.2, crop=0.95),
    Checkpoint("convnext_small",      "in12k_ft_in1k_384",                        "timm_hub",    "convnext_small.in12k_ft_in1k_384.safetensors",                                  1000, 384),
    Checkpoint("convnext_small",      "in12k",                                    "timm_hub",    "convnext_small.in12k.safetensors",                                              11821, 224, crop=0.95),
    Checkpoint("convnext_nano",       "in12k_ft_in1k",                            "timm_hub",    "convnext_nano.in12k_ft_in1k.safetensors",                                       1000, 224, 82.3, crop=0.95),
    Checkpoint("convnext_nano",       "r384_in12k_ft_in1k",                       "timm_hub",    "convnext_nano.r384_in12k_ft_in1k.safetensors",                                  1000, 384, crop=1.0),
    Checkpoint("convnext_nano",       "in12k",                                    "timm_hub",    "convnext_nano.in12k.safetensors",                                               11821, 224, crop=0.95),
    Checkpoint("convnext_nano",       "r384_in12k",                               "timm_hub",    "convnext_nano.r384_in12k.safetensors",                                          11821, 384, crop=1.0),
    Checkpoint("convnext_nano",       "r384_ad_in12k",                            "timm_hub",    "convnext_nano.r384_ad_in12k.safetensors",                                       11821, 384, crop=1.0),
    # Meta's EUPE
    Checkpoint("convnext_tiny",       "eupe",                                     "huggingface", "convnext_tiny.eupe_lvd1689m.safetensors",                                       None, 256, crop=1.0),
    Checkpoint("convnext_small",      "eupe",                                     "huggingface", "convnext_small.eupe_lvd1689m.safetensors",                                      None, 256, crop=1.0),
    Checkpoint("convnext_base",       "eupe",                                     "huggingface", "convnext_base.eupe_lvd1689m.safetensors",                                       None, 256, crop=1.0),
    # image towers of LAION's CLIP, and classifiers fine-tuned from them
    Checkpoint("convnext_base",       "clip_laion2b_augreg_ft_in12k_in1k",        "timm_hub",    "convnext_base.clip_laion2b_augreg_ft_in12k_in1k.safetensors",                   1000, 256, crop=1.0, pixels=CLIP),
    Checkpoint("convnext_base",       "clip_laion2b_augreg_ft_in12k_in1k_384",    "timm_hub",    "convnext_base.clip_laion2b_augreg_ft_in12k_in1k_384.safetensors",               1000, 384, 87.1, pixels=CLIP),
    Checkpoint("convnext_base",       "clip_laion2b_augreg_ft_in1k",              "timm_hub",    "convnext_base.clip_laion2b_augreg_ft_in1k.safetensors",                         1000, 256, crop=1.0, pixels=CLIP),
    Checkpoint("convnext_base",       "clip_laiona_augreg_ft_in1k_384",           "timm_hub",    "convnext_base.clip_laiona_augreg_ft_in1k_384.safetensors",                      1000, 384, crop=1.0, pixels=CLIP),
    Checkpoint("convnext_base",       "clip_laion2b_augreg_ft_in12k",             "timm_hub",    "convnext_base.clip_laion2b_augreg_ft_in12k.safetensors",                        11821, 256, crop=1.0, pixels=CLIP),
    Checkpoint("convnext_base",       "clip_laion2b",                             "timm_hub",    "convnext_base.clip_laion2b.safetensors",                                        640, 256, crop=1.0, pixels=CLIP, is_embedding=True),
    Checkpoint("convnext_base",       "clip_laion2b_augreg",                      "timm_hub",    "convnext_base.clip_laion2b_augreg.safetensors",                                 640, 256, crop=1.0, pixels=CLIP, is_embedding=True),
    Checkpoint("convnext_base",       "clip_laiona",                              "timm_hub",    "convnext_base.clip_laiona.safetensors",                                         640, 256, crop=1.0, pixels=CLIP, is_embedding=True),
    Checkpoint("convnext_base",       "clip_laiona_320",                          "timm_hub",    "convnext_base.clip_laiona_320.safetensors",                                     640, 320, crop=1.0, pixels=CLIP, is_embedding=True),
    Checkpoint("convnext_base",       "clip_laiona_augreg_320",                   "timm_hub",    "convnext_base.clip_laiona_augreg_320.safetensors",                              640, 320, crop=1.0, pixels=CLIP, is_embedding=True),
    Checkpoint("convnext_large_mlp",  "clip_laion2b_soup_ft_in12k_in1k_320",      "timm_hub",    "convnext_large_mlp.clip_laion2b_soup_ft_in12k_in1k_320.safetensors",            1000, 320, crop=1.0, pixels=CLIP),
    Checkpoint("convnext_large_mlp",  "clip_laion2b_soup_ft_in12k_in1k_384",      "timm_hub",    "convnext_large_mlp.clip_laion2b_soup_ft_in12k_in1k_384.safetensors",            1000, 384, 88.3, pixels=CLIP),
    Checkpoint("convnext_large_mlp",  "clip_laion2b_augreg_ft_in1k",              "timm_hub",    "convnext_large_mlp.clip_laion2b_augreg_ft_in1k.safetensors",                    1000, 256, crop=1.0, pixels=CLIP),
    Checkpoint("convnext_large_mlp",  "clip_laion2b_augreg_ft_in1k_384",          "timm_hub",    "convnext_large_mlp.clip_laion2b_augreg_ft_in1k_384.safetensors",                1000, 384, pixels=CLIP),
    Checkpoint("convnext_large_mlp",  "clip_laion2b_soup_ft_in12k_320",           "timm_hub",    "convnext_large_mlp.clip_laion2b_soup_ft_in12k_320.safetensors",                 11821, 320, crop=1.0, pixels=CLIP),
    Checkpoint("convnext_large_mlp",  "clip_laion2b_augreg_ft_in12k_384",         "timm_hub",    "convnext_large_mlp.clip_laion2b_augreg_ft_in12k_384.safetensors",               11821, 384, pixels=CLIP),
    Checkpoint("convnext_large_mlp",  "clip_laion2b_soup_ft_in12k_384",           "timm_hub",    "convnext_large_mlp.clip_laion2b_soup_ft_in12k_384.safetensors",                 11821, 384, pixels=CLIP),
    Checkpoint("convnext_large_mlp",  "clip_laion2b_augreg",                      "timm_hub",    "convnext_large_mlp.clip_laion2b_augreg.safetensors",                            768, 256, crop=1.0, pixels=CLIP, is_embedding=True),
    Checkpoint("convnext_large_mlp",  "clip_laion2b_ft_320",                      "timm_hub",    "convnext_large_mlp.clip_laion2b_ft_320.safetensors",                            768, 320, crop=1.0, pixels=CLIP, is_embedding=True),
    Checkpoint("convnext_large_mlp",  "clip_laion2b_ft_soup_320",                 "timm_hub",    "convnext_large_mlp.clip_laion2b_ft_soup_320.safetensors",                       768, 320, crop=1.0, pixels=CLIP, is_embedding=True),
    Checkpoint("convnext_xxlarge",    "clip_laion2b_soup_ft_in1k",                "timm_hub",    "convnext_xxlarge.clip_laion2b_soup_ft_in1k.safetensors",                        1000, 256, 88.6, crop=1.0, pixels=CLIP),
    Checkpoint("convnext_xxlarge",    "clip_laion2b_soup_ft_in12k",               "timm_hub",    "convnext_xxlarge.clip_laion2b_soup_ft_in12k.safetensors",                       11821, 256, crop=1.0, pixels=CLIP),
    Checkpoint("convnext_xxlarge",    "clip_laion2b_soup",                        "timm_hub",    "convnext_xxlarge.clip_laion2b_soup.safetensors",                                1024, 256, crop=1.0, pixels=CLIP, is_embedding=True),
    Checkpoint("convnext_xxlarge",    "clip_laion2b_rewind",                      "timm_hub",    "convnext_xxlarge.clip_laion2b_rewind.safetensors",                              1024, 256, crop=1.0, pixels=CLIP, is_embedding=True),
    # copies of the files on GitHub
    Checkpoint("convnext_atto",       "imagenet",                                 "timm_hub",    "convnext_atto.d2_in1k.safetensors",                                             1000, 224),
    Checkpoint("convnext_femto",      "imagenet",                                 "timm_hub",    "convnext_femto.d1_in1k.safetensors",                                            1000, 224),
    Checkpoint("convnext_pico",       "imagenet",                                 "timm_hub",    "convnext_pico.d1_in1k.safetensors",                                             1000, 224),
    Checkpoint("convnext_nano",       "imagenet",                                 "timm_hub",    "convnext_nano.d1h_in1k.safetensors",                                            1000, 224, crop=0.95),
)  # fmt: skip

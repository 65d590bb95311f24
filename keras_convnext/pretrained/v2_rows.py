"""The published ConvNeXt V2, one row per file: classifiers, and encoders without labels.

The files and their accuracies are those of facebookresearch/ConvNeXt-V2 (README), and the copies
those of huggingface/pytorch-image-models (timm/models/convnext.py).
"""

from keras_convnext.pretrained.catalog_row import Checkpoint

V2 = (
    # fine-tuned on ImageNet-1K
    Checkpoint("convnextv2_atto",  "imagenet",           "official_v2_1k",    "convnextv2_atto_1k_224_ema.pt",           1000, 224, 76.7),
    Checkpoint("convnextv2_femto", "imagenet",           "official_v2_1k",    "convnextv2_femto_1k_224_ema.pt",          1000, 224, 78.5),
    Checkpoint("convnextv2_pico",  "imagenet",           "official_v2_1k",    "convnextv2_pico_1k_224_ema.pt",           1000, 224, 80.3),
    Checkpoint("convnextv2_nano",  "imagenet",           "official_v2_1k",    "convnextv2_nano_1k_224_ema.pt",           1000, 224, 81.9),
    Checkpoint("convnextv2_tiny",  "imagenet",           "official_v2_1k",    "convnextv2_tiny_1k_224_ema.pt",           1000, 224, 83.0),
    Checkpoint("convnextv2_base",  "imagenet",           "official_v2_1k",    "convnextv2_base_1k_224_ema.pt",           1000, 224, 84.9),
    Checkpoint("convnextv2_large", "imagenet",           "official_v2_1k",    "convnextv2_large_1k_224_ema.pt",          1000, 224, 85.8),
    Checkpoint("convnextv2_huge",  "imagenet",           "official_v2_1k",    "convnextv2_huge_1k_224_ema.pt",           1000, 224, 86.3),
    # fine-tuned on ImageNet-22K, then on ImageNet-1K
    Checkpoint("convnextv2_nano",  "imagenet22k_ft",     "official_v2_22k",   "convnextv2_nano_22k_224_ema.pt",          1000, 224, 82.1),
    Checkpoint("convnextv2_tiny",  "imagenet22k_ft",     "official_v2_22k",   "convnextv2_tiny_22k_224_ema.pt",          1000, 224, 83.9),
    Checkpoint("convnextv2_base",  "imagenet22k_ft",     "official_v2_22k",   "convnextv2_base_22k_224_ema.pt",          1000, 224, 86.8),
    Checkpoint("convnextv2_large", "imagenet22k_ft",     "official_v2_22k",   "convnextv2_large_22k_224_ema.pt",         1000, 224, 87.3),
    Checkpoint("convnextv2_nano",  "imagenet22k_ft_384", "official_v2_22k",   "convnextv2_nano_22k_384_ema.pt",          1000, 384, 83.4),
    Checkpoint("convnextv2_tiny",  "imagenet22k_ft_384", "official_v2_22k",   "convnextv2_tiny_22k_384_ema.pt",          1000, 384, 85.1),
    Checkpoint("convnextv2_base",  "imagenet22k_ft_384", "official_v2_22k",   "convnextv2_base_22k_384_ema.pt",          1000, 384, 87.7),
    Checkpoint("convnextv2_large", "imagenet22k_ft_384", "official_v2_22k",   "convnextv2_large_22k_384_ema.pt",         1000, 384, 88.2),
    Checkpoint("convnextv2_huge",  "imagenet22k_ft_384", "official_v2_22k",   "convnextv2_huge_22k_384_ema.pt",          1000, 384, 88.7),
    Checkpoint("convnextv2_huge",  "imagenet22k_ft_512", "official_v2_22k",   "convnextv2_huge_22k_512_ema.pt",          1000, 512, 88.9),
    # encoders, without final norm and classifier
    Checkpoint("convnextv2_atto",  "fcmae",              "official_v2_fcmae", "convnextv2_atto_1k_224_fcmae.pt",         None, 224),
    Checkpoint("convnextv2_femto", "fcmae",              "official_v2_fcmae", "convnextv2_femto_1k_224_fcmae.pt",        None, 224),
    Checkpoint("convnextv2_pico",  "fcmae",              "official_v2_fcmae", "convnextv2_pico_1k_224_fcmae.pt",         None, 224),
    Checkpoint("convnextv2_nano",  "fcmae",              "official_v2_fcmae", "convnextv2_nano_1k_224_fcmae.pt",         None, 224),
    Checkpoint("convnextv2_tiny",  "fcmae",              "official_v2_fcmae", "convnextv2_tiny_1k_224_fcmae.pt",         None, 224),
    Checkpoint("convnextv2_base",  "fcmae",              "official_v2_fcmae", "convnextv2_base_1k_224_fcmae.pt",         None, 224),
    Checkpoint("convnextv2_large", "fcmae",              "official_v2_fcmae", "convnextv2_large_1k_224_fcmae.pt",        None, 224),
    Checkpoint("convnextv2_huge",  "fcmae",              "official_v2_fcmae", "convnextv2_huge_1k_224_fcmae.pt",         None, 224),
    # copies of the official files, converted by timm
    Checkpoint("convnextv2_atto",  "imagenet",           "huggingface",       "convnextv2_atto.fcmae_ft_in1k.safetensors",                      1000, 224),
    Checkpoint("convnextv2_femto", "imagenet",           "huggingface",       "convnextv2_femto.fcmae_ft_in1k.safetensors",                     1000, 224),
    Checkpoint("convnextv2_pico",  "imagenet",           "huggingface",       "convnextv2_pico.fcmae_ft_in1k.safetensors",                      1000, 224),
    Checkpoint("convnextv2_nano",  "imagenet",           "huggingface",       "convnextv2_nano.fcmae_ft_in1k.safetensors",                      1000, 224),
    Checkpoint("convnextv2_tiny",  "imagenet",           "huggingface",       "convnextv2_tiny.fcmae_ft_in1k.safetensors",                      1000, 224),
    Checkpoint("convnextv2_base",  "imagenet",           "huggingface",       "convnextv2_base.fcmae_ft_in1k.safetensors",                      1000, 224),
    Checkpoint("convnextv2_large", "imagenet",           "huggingface",       "convnextv2_large.fcmae_ft_in1k.safetensors",                     1000, 224),
    Checkpoint("convnextv2_huge",  "imagenet",           "huggingface",       "convnextv2_huge.fcmae_ft_in1k.safetensors",                      1000, 224),
    Checkpoint("convnextv2_nano",  "imagenet22k_ft",     "huggingface",       "convnextv2_nano.fcmae_ft_in22k_in1k.safetensors",                1000, 224),
    Checkpoint("convnextv2_tiny",  "imagenet22k_ft",     "huggingface",       "convnextv2_tiny.fcmae_ft_in22k_in1k.safetensors",                1000, 224),
    Checkpoint("convnextv2_base",  "imagenet22k_ft",     "huggingface",       "convnextv2_base.fcmae_ft_in22k_in1k.safetensors",                1000, 224),
    Checkpoint("convnextv2_large", "imagenet22k_ft",     "huggingface",       "convnextv2_large.fcmae_ft_in22k_in1k.safetensors",               1000, 224),
    Checkpoint("convnextv2_nano",  "imagenet22k_ft_384", "huggingface",       "convnextv2_nano.fcmae_ft_in22k_in1k_384.safetensors",            1000, 384),
    Checkpoint("convnextv2_tiny",  "imagenet22k_ft_384", "huggingface",       "convnextv2_tiny.fcmae_ft_in22k_in1k_384.safetensors",            1000, 384),
    Checkpoint("convnextv2_base",  "imagenet22k_ft_384", "huggingface",       "convnextv2_base.fcmae_ft_in22k_in1k_384.safetensors",            1000, 384),
    Checkpoint("convnextv2_large", "imagenet22k_ft_384", "huggingface",       "convnextv2_large.fcmae_ft_in22k_in1k_384.safetensors",           1000, 384),
    Checkpoint("convnextv2_huge",  "imagenet22k_ft_384", "huggingface",       "convnextv2_huge.fcmae_ft_in22k_in1k_384.safetensors",            1000, 384),
    Checkpoint("convnextv2_huge",  "imagenet22k_ft_512", "huggingface",       "convnextv2_huge.fcmae_ft_in22k_in1k_512.safetensors",            1000, 512),
    Checkpoint("convnextv2_atto",  "fcmae",              "huggingface",       "convnextv2_atto.fcmae.safetensors",                              None, 224),
    Checkpoint("convnextv2_femto", "fcmae",              "huggingface",       "convnextv2_femto.fcmae.safetensors",                             None, 224),
    Checkpoint("convnextv2_pico",  "fcmae",              "huggingface",       "convnextv2_pico.fcmae.safetensors",                              None, 224),
    Checkpoint("convnextv2_nano",  "fcmae",              "huggingface",       "convnextv2_nano.fcmae.safetensors",                              None, 224),
    Checkpoint("convnextv2_tiny",  "fcmae",              "huggingface",       "convnextv2_tiny.fcmae.safetensors",                              None, 224),
    Checkpoint("convnextv2_base",  "fcmae",              "huggingface",       "convnextv2_base.fcmae.safetensors",                              None, 224),
    Checkpoint("convnextv2_large", "fcmae",              "huggingface",       "convnextv2_large.fcmae.safetensors",                             None, 224),
    Checkpoint("convnextv2_huge",  "fcmae",              "huggingface",       "convnextv2_huge.fcmae.safetensors",                              None, 224),
)  # fmt: skip

# The first five logits, as in `COCO_LOGITS` of `classifier_rows`; from huggingface/transformers,
# convert_convnextv2_to_pytorch.py.
V2_COCO_LOGITS = {
    "convnextv2_atto_1k_224_ema.pt":    (-0.3930, 0.1747, -0.5246, 0.4177, 0.4295),
    "convnextv2_femto_1k_224_ema.pt":   (-0.1727, -0.5341, -0.7818, -0.4745, -0.6566),
    "convnextv2_pico_1k_224_ema.pt":    (-0.0333, 0.1563, -0.9137, 0.1054, 0.0381),
    "convnextv2_nano_1k_224_ema.pt":    (-0.1744, -0.1555, -0.0713, 0.0950, -0.1431),
    "convnextv2_tiny_1k_224_ema.pt":    (0.9996, 0.1966, -0.4386, -0.3472, 0.6661),
    "convnextv2_base_1k_224_ema.pt":    (-0.2553, -0.6708, -0.1359, 0.2518, -0.2488),
    "convnextv2_large_1k_224_ema.pt":   (-0.0673, -0.5627, -0.3753, -0.2722, 0.0178),
    "convnextv2_huge_1k_224_ema.pt":    (-0.6377, -0.7458, -0.2150, 0.1184, -0.0597),
    "convnextv2_nano_22k_224_ema.pt":   (1.0799, 0.2322, -0.8860, 1.0219, 0.6231),
    "convnextv2_tiny_22k_224_ema.pt":   (0.4220, -0.6919, -0.4317, -0.2881, -0.6609),
    "convnextv2_base_22k_224_ema.pt":   (-0.2419, -0.6221, 0.2176, -0.0980, -0.7527),
    "convnextv2_large_22k_224_ema.pt":  (-0.0504, 0.5636, -0.1729, -0.6507, -0.3949),
    "convnextv2_nano_22k_384_ema.pt":   (0.3766, 0.4917, -1.1426, 0.9942, 0.6024),
    "convnextv2_tiny_22k_384_ema.pt":   (0.1082, -0.8286, -0.5095, 0.4681, -0.8085),
    "convnextv2_base_22k_384_ema.pt":   (0.0391, -0.4371, 0.3786, 0.1251, -0.2784),
    "convnextv2_large_22k_384_ema.pt":  (0.3560, 0.9486, 0.3149, -0.2667, -0.5138),
    "convnextv2_huge_22k_384_ema.pt":   (-0.2469, -0.4550, -0.5853, -0.0810, 0.0309),
    "convnextv2_huge_22k_512_ema.pt":   (-0.3090, 0.0802, -0.0682, -0.1979, -0.2826),
}  # fmt: skip

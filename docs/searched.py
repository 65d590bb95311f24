"""Words that people search for and that the page with the answer does not use.

They become entries of the index, which the search lists first.
"""

WORDS = {
    "README.md": ("license",),
    "docs/everyday.md": (
        "embedding",
        "feature extraction",
        "gradient accumulation",
        "normalization",
    ),
    "docs/export.md": ("export", "onnx", "int8", "litert", "tflite", "openvino"),
    "docs/files.md": ("safetensors", "pth", "state_dict"),
    "docs/scaling.md": ("multiple gpus", "multi-gpu", "distributed training"),
    "examples/confidence.ipynb": ("calibration", "threshold", "uncertainty", "unknown class"),
    "examples/fine_tune.ipynb": ("finetune", "finetuning", "transfer learning"),
    "docs/security.md": ("untrusted", "malware"),
    "docs/roadmap.md": ("ablation", "resnet", "figure 2"),
    "docs/robustness.md": ("imagenet-c", "corruption", "mce", "out of distribution"),
    "weights/README.md": ("offline", "proxy", "mirror", "download", "cache"),
}  # fmt: skip

"""Devices: their memory, their peak performance, and the utilization that training reaches.

Memory and peaks are from the vendors' data sheets: dense, float16 with float32 accumulation. Peaks
are in TFLOP/s, or None if a device does not support the format. In float32, TensorFlow uses TF32 if
available. Utilization counts a training step as three forward passes, with two operations per
multiply-accumulate. Measured and reported rates are for PyTorch and one network; wider networks
reach more (on rtx-3090: Tiny 0.31, Small 0.36, Base 0.44, Large 0.55, XLarge 0.60).
"""

from typing import NamedTuple


class Rate(NamedTuple):
    """The fraction of the peak performance that training reaches.

    Args:
        utilization: float. Fraction of the peak.
        basis: str. Source of the figure; begins with "measured", "reported" or "assumed".
    """

    utilization: float
    basis: str


class Device(NamedTuple):
    """A type of device.

    Args:
        name: str. Name of the device type.
        memory: float. Memory in GiB.
        float32: float. Peak in TFLOP/s.
        tf32: float or None. Peak in TFLOP/s.
        bfloat16: float or None. Peak in TFLOP/s.
        float16: float or None. Peak in TFLOP/s.
        rates: dict from precisions of recipes to `Rate`s.
        workspace: int. Bytes that a process needs in addition to tensors, for any network.
        gaps: float. Memory lost between tensors in the allocator, as a fraction of the tensors.
        is_gpu: bool. Whether it is a GPU. All cores of a CPU together are one device.
    """

    name: str
    memory: float
    float32: float
    tf32: float | None
    bfloat16: float | None
    float16: float | None
    rates: dict[str, Rate]
    workspace: int = 2**30  # assumed: context, libraries and their scratch memory
    gaps: float = 0.0
    is_gpu: bool = True

    def peak(self, precision: str) -> float:
        """Peak performance in TensorFlow with the precision of a recipe, in TFLOP/s."""
        if precision == "float32":
            return self.tf32 or self.float32
        return getattr(self, precision.removeprefix("mixed_"))


_TINY_TF32 = "measured: Tiny, 575 images/s, batch 128"  # sail-sg/inceptionnext, README
# facebookresearch/ConvNeXt, issue 82: Base on 8 x A100, an epoch in 15.5 minutes including input;
# judging by rtx-3090, the training step alone is faster.
_BASE_FLOAT16 = "reported: Base, 172 images/s, a whole run"
# huggingface/pytorch-image-models, results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv
_BASE_3090 = "measured: Base, 339 images/s, batch 128"
_BY_BANDWIDTH = "assumed: as a100, scaled by memory bandwidth"
# Inference with Base reaches 292 images/s, 0.57 of the peak (arXiv 2201.03545, table 1, on a V100).
_BELOW_FORWARD = "assumed: below the 0.57 of a forward pass"
_AS_FLOAT16 = "assumed: as float16"

DEVICES = {
    row.name: row
    for row in (
        # memory, float32, TF32, bfloat16, float16
        # NVIDIA V100 data sheet, SXM2.
        Device("v100-32gb", 32, 15.7, None, None, 125.0, {
            "float32": Rate(0.45, _BELOW_FORWARD),
            "mixed_float16": Rate(0.085, "assumed: 1.5 times as fast as float32"),
        }),
        # NVIDIA A100 data sheet, SXM4.
        Device("a100-40gb", 40, 19.5, 156.0, 312.0, 312.0, {
            "float32": Rate(0.099, _TINY_TF32),
            "mixed_float16": Rate(0.051, _BASE_FLOAT16),
            "mixed_bfloat16": Rate(0.051, _AS_FLOAT16),
        }),
        Device("a100-80gb", 80, 19.5, 156.0, 312.0, 312.0, {
            "float32": Rate(0.099, _TINY_TF32),
            "mixed_float16": Rate(0.051, _BASE_FLOAT16),
            "mixed_bfloat16": Rate(0.051, _AS_FLOAT16),
        }),
        # NVIDIA H100 and H200 data sheets, SXM5: 3.35 and 4.8 TB/s, compared with 1.555 for
        # a100-40gb.
        Device("h100-80gb", 80, 67.0, 494.5, 989.5, 989.5, {
            "float32": Rate(0.067, _BY_BANDWIDTH),
            "mixed_float16": Rate(0.035, _BY_BANDWIDTH),
            "mixed_bfloat16": Rate(0.035, _BY_BANDWIDTH),
        }),
        Device("h200", 141, 67.0, 494.5, 989.5, 989.5, {
            "float32": Rate(0.096, _BY_BANDWIDTH),
            "mixed_float16": Rate(0.050, _BY_BANDWIDTH),
            "mixed_bfloat16": Rate(0.050, _BY_BANDWIDTH),
        }),
        # NVIDIA Ampere GA102 and Ada architecture papers: 936 and 1,008 GB/s.
        Device("rtx-3090", 24, 35.6, 35.6, 71.0, 71.0, {
            "float32": Rate(0.26, _BY_BANDWIDTH),
            "mixed_float16": Rate(0.44, _BASE_3090),
            "mixed_bfloat16": Rate(0.44, _AS_FLOAT16),
        }),
        Device("rtx-4090", 24, 82.6, 82.6, 165.2, 165.2, {
            "float32": Rate(0.12, _BY_BANDWIDTH),
            "mixed_float16": Rate(0.20, "assumed: as rtx-3090, scaled by memory bandwidth"),
            "mixed_bfloat16": Rate(0.20, "assumed: as rtx-3090, scaled by memory bandwidth"),
        }),
        # benchmarks/results/speed.json: the fastest matrix product divided by its two cores, and
        # the fraction of it that this package reaches. Memory: assumed, a common amount per core in
        # clouds. Workspace and gaps: fitted to runs of benchmarks/planning.py, in which gaps were
        # 0.15 to 0.6 in addition to the memory of the imports.
        Device("cpu-core", 4, 0.0756, None, None, None, {
            "float32": Rate(0.55, "measured: Tiny, 3.1 images/s on two cores, batch 8"),
        }, workspace=225 * 2**20, gaps=0.3, is_gpu=False),
    )
}  # fmt: skip

DEVICES_PER_MACHINE = 8  # as in the official training

# Training images that a core decodes and augments per second: benchmarks/results/input.json,
# divided by its two cores, for full-size ImageNet photographs.
INPUT_IMAGES_PER_CORE = 264

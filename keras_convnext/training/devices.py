"""What devices have and what training makes of it, one row each.

Memory and peaks: the vendors' data sheets, dense, float16 with float32 accumulation. Peaks are in
TFLOP/s, None where a device has no such arithmetic. In float32 TensorFlow takes TF32 where there is
any. The rates that training reaches count a step as three forward passes of two operations a
multiply-accumulate: measured and reported ones are of PyTorch, and those of one network; wider ones
reach more (on rtx-3090: Tiny 0.31, Small 0.36, Base 0.44, Large 0.55, XLarge 0.60).
"""

from typing import NamedTuple


class Rate(NamedTuple):
    """The part of the peak that training reaches.

    Args:
        utilisation: float. Of the peak.
        basis: str. Begins with "measured", "reported" or "assumed".
    """

    utilisation: float
    basis: str


class Device(NamedTuple):
    """A type of device.

    Args:
        name: str.
        memory: float. In GiB.
        float32: float. Peak.
        tf32: float or None. Peak.
        bfloat16: float or None. Peak.
        float16: float or None. Peak.
        rates: dict of str to Rate. By precision of a recipe.
        workspace: int. Bytes that a process takes beside tensors, whatever it trains.
        gaps: float. What the allocator leaves between tensors, as a part of them.
        is_gpu: bool. Cores of a CPU are one device together.
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
        """The peak that TensorFlow comes under with the precision of a recipe, in TFLOP/s."""
        if precision == "float32":
            return self.tf32 or self.float32
        return getattr(self, precision.removeprefix("mixed_"))


_TINY_TF32 = "measured: Tiny, 575 images/s, batch 128"  # sail-sg/inceptionnext, README
# facebookresearch/ConvNeXt, issue 82: Base on 8 x A100, an epoch in 15.5 minutes, its input
# and all: less than the mere step can do, to judge by rtx-3090.
_BASE_FLOAT16 = "reported: Base, 172 images/s, a whole run"
# huggingface/pytorch-image-models, results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv
_BASE_3090 = "measured: Base, 339 images/s, batch 128"
_BY_BANDWIDTH = "assumed: as a100, by the bandwidth of the memory"
# Base runs forward at 292 images/s, 0.57 of the peak (arXiv 2201.03545, table 1, on a V100).
_BELOW_FORWARD = "assumed: under the 0.57 of a forward pass"
_AS_FLOAT16 = "assumed: as float16"

DEVICES = {
    row.name: row
    for row in (
        # memory, float32, TF32, bfloat16, float16
        # NVIDIA V100 data sheet, SXM2.
        Device("v100-32gb", 32, 15.7, None, None, 125.0, {
            "float32": Rate(0.45, _BELOW_FORWARD),
            "mixed_float16": Rate(0.085, "assumed: half as fast again as float32"),
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
        # NVIDIA H100 and H200 data sheets, SXM5: 3.35 and 4.8 TB/s beside the 1.555 of a100-40gb.
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
            "mixed_float16": Rate(0.20, "assumed: as rtx-3090, by the bandwidth of the memory"),
            "mixed_bfloat16": Rate(0.20, "assumed: as rtx-3090, by the bandwidth of the memory"),
        }),
        # benchmarks/results/speed.json: the fastest matrix product there, over its two cores, and
        # the share of it that this package reaches. Memory: assumed, what clouds put beside a core.
        # Workspace and gaps: fitted to runs of benchmarks/planning.py, where gaps were 0.15 to 0.6,
        # beside what the imports take.
        Device("cpu-core", 4, 0.0756, None, None, None, {
            "float32": Rate(0.55, "measured: Tiny, 3.1 images/s on two cores, batch 8"),
        }, workspace=225 * 2**20, gaps=0.3, is_gpu=False),
    )
}  # fmt: skip

DEVICES_A_MACHINE = 8  # as in the official training

# Training images a core decodes and distorts a second: benchmarks/results/input.json, over its two
# cores, from full-size ImageNet photographs.
INPUT_IMAGES_A_CORE = 264

"""The steps from ResNet to ConvNeXt, one row each, and the networks that they start from.

The steps are those of Liu et al., "A ConvNet for the 2020s" (arXiv 2201.03545), section 2 and
figure 2. The figures are from tables 10 and 11, which list them for ResNet-50 and for ResNet-200.
"""

from typing import NamedTuple

from keras_convnext.printable import PrintableError, printable


class Step(NamedTuple):
    """A network on the road. Each flag is a change that this step or an earlier one has made.

    Args:
        name: str. Name of the step.
        change: str. What the step changes, with the regime's `{depths}` and `{width}`.
        stage_ratio: bool. Blocks per stage as in ConvNeXt.
        patchify: bool. The stem is a convolution over non-overlapping patches.
        depthwise: bool. The spatial convolution of a block is depthwise.
        wide: bool. The width of ConvNeXt.
        inverted: bool. The hidden layers of a block are four times wider than its ends, not four
            times narrower.
        move_up: bool. The depthwise convolution is the first of a block.
        kernel_size: int. Side of the spatial kernels in the blocks.
        gelu: bool. GELU instead of ReLU.
        fewer_activations: bool. One activation per block: between the pointwise convolutions.
        fewer_norms: bool. One norm per block: after the depthwise convolution.
        layer_norm: bool. Layer normalization instead of batch normalization, and biases in the
            convolutions of the blocks.
        final_norm: bool. A norm between the pooling and the classifier.
        downsampling: bool. A 2x2 convolution with stride 2 between two stages. All blocks have
            stride 1.
        outer_norms: bool. A norm after the stem and before each downsampling.
        layer_scale: float or None. Initial value of layer scale.
    """

    name: str
    change: str
    stage_ratio: bool = False
    patchify: bool = False
    depthwise: bool = False
    wide: bool = False
    inverted: bool = False
    move_up: bool = False
    kernel_size: int = 3
    gelu: bool = False
    fewer_activations: bool = False
    fewer_norms: bool = False
    layer_norm: bool = False
    final_norm: bool = False
    downsampling: bool = False
    outer_norms: bool = False
    layer_scale: float | None = None


def _cumulated(*rows: tuple[str, str, dict[str, bool | int | float]]) -> dict[str, Step]:
    """Returns the steps by name. Each has the flags of the rows above it, and its own."""
    flags: dict[str, bool | int | float] = {}
    steps = {}
    for name, change, own in rows:
        flags |= own
        steps[name] = Step(name, change, **flags)  # type: ignore[arg-type]
    return steps


STEPS = _cumulated(
    # name               what it changes          the flag
    ("resnet",            "",                      {}),
    ("stage_ratio",       "{depths}, width {width}", {"stage_ratio": True}),
    ("patchify",          "patches as the stem",   {"patchify": True}),
    ("depthwise",         "depthwise convolution", {"depthwise": True}),
    ("width",             "width {width}",         {"wide": True}),
    ("inverted",          "inverted bottleneck",   {"inverted": True}),
    ("move_up",           "depthwise conv first",  {"move_up": True}),
    ("kernel_5",          "5x5 kernels",           {"kernel_size": 5}),
    ("kernel_7",          "7x7 kernels",           {"kernel_size": 7}),
    ("kernel_9",          "9x9 kernels",           {"kernel_size": 9}),
    ("kernel_11",         "11x11 kernels",         {"kernel_size": 11}),
    ("gelu",              "7x7, GELU for ReLU",    {"kernel_size": 7, "gelu": True}),
    ("fewer_activations", "one GELU per block",    {"fewer_activations": True}),
    ("fewer_norms",       "one norm per block",    {"fewer_norms": True}),
    ("layer_norm",        "layer norm",            {"layer_norm": True}),
    ("final_norm",        "norm before the head",  {"final_norm": True}),
    # The code that the authors released builds this, but it does not train (section 2.6).
    ("bare_downsampling", "2x2 downsampling",      {"downsampling": True}),
    ("downsampling",      "norms around it",       {"outer_norms": True}),
    ("convnext",          "layer scale",           {"layer_scale": 1e-6}),
)  # fmt: skip


class Figures(NamedTuple):
    """What the paper reports for a step.

    Args:
        gflops: float or None. Billions of multiply-accumulates for 224 px.
        top1: float or None. Accuracy on ImageNet-1K in percent, for ResNet-50 the mean of three
            runs.
        deviation: float or None. Standard deviation of the three runs.
    """

    gflops: float | None = None
    top1: float | None = None
    deviation: float | None = None


class Regime(NamedTuple):
    """A ResNet, and the ConvNeXt that it becomes.

    Args:
        name: str. Name of the regime.
        title: str. The two networks.
        size: int. Default side of the images, in pixels.
        stem_stride: int. Stride of the stem, and side of the patches.
        depths: pair of tuples of int. Blocks per stage, before and after "stage_ratio".
        widths: tuple of three ints. Width of the first stage before "stage_ratio", after it, and
            after "width". It doubles from stage to stage.
        figures: dict from names of steps to `Figures`.
        classes: int. Default number of classes. Defaults to 1000.
    """

    name: str
    title: str
    size: int
    stem_stride: int
    depths: tuple[tuple[int, ...], tuple[int, ...]]
    widths: tuple[int, int, int]
    figures: dict[str, Figures]
    classes: int = 1000

    @property
    def min_size(self) -> int:
        """Smallest supported height or width: the stride of the last feature map."""
        return int(self.stem_stride * 2 ** (len(self.depths[0]) - 1))

    def depths_of(self, step: Step) -> tuple[int, ...]:
        """Returns the blocks per stage."""
        return self.depths[step.stage_ratio]

    def dims_of(self, step: Step) -> tuple[int, ...]:
        """Returns the width of each stage; a bottleneck's ends are four times wider."""
        width = self.widths[step.stage_ratio + step.wide]
        return tuple(width * 2**stage for stage in range(len(self.depths_of(step))))

    def change_of(self, step: Step) -> str:
        """Returns what a step changes, in words; for the first one, the network."""
        depths = "-".join(map(str, self.depths_of(step)))
        text = step.change.format(depths=depths, width=self.dims_of(step)[0])
        return text or self.title.partition(" ")[0]

    def figures_of(self, step: Step) -> Figures:
        """Returns what the paper reports for a step, if anything."""
        return self.figures.get(step.name, Figures())


REGIMES = {
    regime.name: regime
    for regime in (
        Regime(
            "resnet50", "ResNet-50 to ConvNeXt-T", 224, 4,
            ((3, 4, 6, 3), (3, 3, 9, 3)), (64, 64, 96),
            {  # table 10
                "resnet":            Figures(4.09, 78.82, 0.07),
                "stage_ratio":       Figures(4.53, 79.36, 0.07),
                "patchify":          Figures(4.42, 79.51, 0.18),
                "depthwise":         Figures(2.35, 78.28, 0.08),
                "width":             Figures(5.27, 80.50, 0.02),
                "inverted":          Figures(4.64, 80.64, 0.03),
                "move_up":           Figures(4.07, 79.92, 0.08),
                "kernel_5":          Figures(4.10, 80.35, 0.08),
                "kernel_7":          Figures(4.15, 80.57, 0.14),
                "kernel_9":          Figures(4.21, 80.57, 0.06),
                "kernel_11":         Figures(4.29, 80.47, 0.11),
                "gelu":              Figures(4.15, 80.62, 0.14),
                "fewer_activations": Figures(4.15, 81.27, 0.06),
                "fewer_norms":       Figures(4.15, 81.41, 0.09),
                "layer_norm":        Figures(4.46, 81.47, 0.09),
                "downsampling":      Figures(4.49, 81.97, 0.06),
                "convnext":          Figures(4.5, 82.1),  # table 1
            },
        ),
        Regime(
            "resnet200", "ResNet-200 to ConvNeXt-B", 224, 4,
            ((3, 24, 36, 3), (3, 3, 27, 3)), (64, 84, 128),
            {  # table 11
                "resnet":            Figures(15.01, 81.14),
                "stage_ratio":       Figures(14.52, 81.33),
                "patchify":          Figures(14.38, 81.59),
                "depthwise":         Figures(7.23, 80.54),
                "width":             Figures(16.76, 81.85),
                "inverted":          Figures(15.68, 82.64),
                "move_up":           Figures(14.63, 82.04),
                "kernel_5":          Figures(14.70, 82.32),
                "kernel_7":          Figures(14.81, 82.30),
                "kernel_9":          Figures(14.95, 82.27),
                "kernel_11":         Figures(15.13, 82.18),
                "gelu":              Figures(14.81, 82.19),
                "fewer_activations": Figures(14.81, 82.71),
                "fewer_norms":       Figures(14.81, 83.17),
                "layer_norm":        Figures(14.81, 83.35),
                "downsampling":      Figures(15.35, 83.60),
                "convnext":          Figures(15.4, 83.8),  # table 1
            },
        ),
        # Ours, for images of 32 px on a CPU: the depths of ResNet-50, a quarter of its widths, and
        # half of its stride in the stem.
        Regime(
            "cifar", "ResNet-50 to ConvNeXt-T, a quarter as wide", 32, 2,
            ((3, 4, 6, 3), (3, 3, 9, 3)), (16, 16, 24), {}, 10,
        ),
    )
}  # fmt: skip


PREFIX = "roadmap:"
MODELS = tuple(  # names for training
    f"{PREFIX}{regime}/{step}".replace(f"{PREFIX}resnet50/", PREFIX)
    for regime in REGIMES
    for step in STEPS
)


def find_model(model: str) -> tuple[Step, Regime] | None:
    """Finds the step that a model is named after.

    Args:
        model: str. "roadmap:STEP", for the road from ResNet-50, or "roadmap:REGIME/STEP"; or the
            name of another network.

    Returns:
        tuple of Step and Regime, or None for the name of another network.

    Raises:
        ValueError: If there is no such step or regime.
    """
    if not model.startswith(PREFIX):
        return None
    regime, _, step = model.removeprefix(PREFIX).rpartition("/")
    return find(step, regime or "resnet50")


def find(step: str | Step, regime: str = "resnet50") -> tuple[Step, Regime]:
    """Finds a step and a regime by name.

    Args:
        step: str or Step. A key of `STEPS`, or a `Step` of your own, which is returned.
        regime: str. A key of `REGIMES`. Defaults to "resnet50".

    Returns:
        tuple of Step and Regime.

    Raises:
        ValueError: If there is no such step or regime, or a `Step` of your own has layer scale.
    """
    if isinstance(step, Step):
        if step.layer_scale is not None and step != STEPS["convnext"]:
            raise PrintableError(
                "Only the step convnext has layer scale: pass a Step with layer_scale=None. "
                f"Received: layer_scale={step.layer_scale}"
            )
    elif step not in STEPS:
        raise PrintableError(
            f"step must be one of {', '.join(STEPS)}. Received: step={printable(step)}"
        )
    if regime not in REGIMES:
        raise PrintableError(
            f"regime must be one of {', '.join(REGIMES)}. Received: regime={printable(regime)}"
        )
    return step if isinstance(step, Step) else STEPS[step], REGIMES[regime]

"""Sets that measure robustness, one row each, and how each is scored by its publication.

The sources of the rules and lists are named beside them. ConvNeXt's table 8 uses -C, -C-bar, -A, -R
and -Sketch.
"""

from typing import NamedTuple

from keras_convnext.preprocessing import CROPPED_SHARE, WARP_FROM, class_labels

WNIDS = tuple(wnid for wnid, _ in class_labels(1000))  # the classes of all sets
SEVERITIES = (1, 2, 3, 4, 5)
WHOLE = "images"  # the only part of a set without corruptions
CORRUPTED_SIZE = 224  # px: the side of all files of -C and -C-bar


class Suite(NamedTuple):
    """A published set of images.

    Args:
        title: str. Its name in tables.
        metric: str. What its figure is: "top-1", "ReaL", "mCE" or "error", in percent.
        layout: str. How its release is stored: "classes" (a folder per class, named by WordNet
            identifier), "numbers" (a folder per class, named by its index), "reassessed" (the
            validation images and `real.json`) or "corruptions" (`<corruption>/<severity>/<class>`).
        images: int. Number of images in the release; of a set of corruptions, in each severity.
        dataset: str or None. Its name in TensorFlow Datasets, if it has the published images.
        scores: str. How an image is scored, for people.
        source: str. Where the rule is published.
        among: tuple of int or None. Indices of the only classes that are compared. Defaults to
            None, for all.
        corruptions: tuple of str. The corruptions that make up the figure. Defaults to none.
        extras: tuple of str. Corruptions that are reported, but not part of the figure.
    """

    title: str
    metric: str
    layout: str
    images: int
    dataset: str | None
    scores: str
    source: str
    among: tuple[int, ...] | None = None
    corruptions: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    @property
    def lower_is_better(self) -> bool:
        """Whether the figure is an error."""
        return self.metric in ("mCE", "error")


# The mean error of AlexNet over the five severities, by which that of a model is divided. From
# facebookresearch/augmentation-corruption, experiments/baseline_data/mCE_baseline_imagenet.p, and
# the table linked in the README of hendrycks/robustness (torchvision's AlexNet).
ALEXNET_ERRORS = {
    "gaussian_noise":    0.886428,
    "shot_noise":        0.894468,
    "impulse_noise":     0.922640,
    "defocus_blur":      0.819880,
    "glass_blur":        0.826268,
    "motion_blur":       0.785948,
    "zoom_blur":         0.798360,
    "snow":              0.866816,
    "frost":             0.826572,
    "fog":               0.819324,
    "brightness":        0.564592,
    "contrast":          0.853204,
    "elastic_transform": 0.646056,
    "pixelate":          0.717840,
    "jpeg_compression":  0.606500,
    # extras, which are never part of the mCE
    "gaussian_blur":     0.787108,
    "saturate":          0.658248,
    "spatter":           0.717512,
    "speckle_noise":     0.845388,
}  # fmt: skip
_C = tuple(ALEXNET_ERRORS)[:15]
_C_EXTRAS = tuple(ALEXNET_ERRORS)[15:]

# imagenet_c_bar/imagenet_c_bar.csv of facebookresearch/augmentation-corruption; "cocentric" is how
# the release spells it.
_C_BAR = (
    "blue_noise_sample", "brownish_noise", "caustic_refraction", "checkerboard_cutout",
    "cocentric_sine_waves", "inverse_sparkles", "perlin_noise", "plasma_noise",
    "single_frequency_greyscale", "sparkles",
)  # fmt: skip

# eval.py of hendrycks/natural-adv-examples
_A = (
    6, 11, 13, 15, 17, 22, 23, 27, 30, 37, 39, 42, 47, 50, 57, 70, 71, 76, 79, 89, 90, 94, 96, 97,
    99, 105, 107, 108, 110, 113, 124, 125, 130, 132, 143, 144, 150, 151, 207, 234, 235, 254, 277,
    283, 287, 291, 295, 298, 301, 306, 307, 308, 309, 310, 311, 313, 314, 315, 317, 319, 323, 324,
    326, 327, 330, 334, 335, 336, 347, 361, 363, 372, 378, 386, 397, 400, 401, 402, 404, 407, 411,
    416, 417, 420, 425, 428, 430, 437, 438, 445, 456, 457, 461, 462, 470, 472, 483, 486, 488, 492,
    496, 514, 516, 528, 530, 539, 542, 543, 549, 552, 557, 561, 562, 569, 572, 573, 575, 579, 589,
    606, 607, 609, 614, 626, 627, 640, 641, 642, 643, 658, 668, 677, 682, 684, 687, 701, 704, 719,
    736, 746, 749, 752, 758, 763, 765, 768, 773, 774, 776, 779, 780, 786, 792, 797, 802, 803, 804,
    813, 815, 820, 823, 831, 833, 835, 839, 845, 847, 850, 859, 862, 870, 879, 880, 888, 890, 897,
    900, 907, 913, 924, 932, 933, 934, 937, 943, 945, 947, 951, 954, 956, 957, 959, 971, 972, 980,
    981, 984, 986, 987, 988,
)  # fmt: skip

# eval.py of hendrycks/imagenet-r
_R = (
    1, 2, 4, 6, 8, 9, 11, 13, 22, 23, 26, 29, 31, 39, 47, 63, 71, 76, 79, 84, 90, 94, 96, 97, 99,
    100, 105, 107, 113, 122, 125, 130, 132, 144, 145, 147, 148, 150, 151, 155, 160, 161, 162, 163,
    171, 172, 178, 187, 195, 199, 203, 207, 208, 219, 231, 232, 234, 235, 242, 245, 247, 250, 251,
    254, 259, 260, 263, 265, 267, 269, 276, 277, 281, 288, 289, 291, 292, 293, 296, 299, 301, 308,
    309, 310, 311, 314, 315, 319, 323, 327, 330, 334, 335, 337, 338, 340, 341, 344, 347, 353, 355,
    361, 362, 365, 366, 367, 368, 372, 388, 390, 393, 397, 401, 407, 413, 414, 425, 428, 430, 435,
    437, 441, 447, 448, 457, 462, 463, 469, 470, 471, 472, 476, 483, 487, 515, 546, 555, 558, 570,
    579, 583, 587, 593, 594, 596, 609, 613, 617, 621, 629, 637, 657, 658, 701, 717, 724, 763, 768,
    774, 776, 779, 780, 787, 805, 812, 815, 820, 824, 833, 847, 852, 866, 875, 883, 889, 895, 907,
    928, 931, 932, 933, 934, 936, 937, 943, 945, 947, 948, 949, 951, 953, 954, 957, 963, 965, 967,
    980, 981, 983, 988,
)  # fmt: skip

SUITES = {
    "imagenet": Suite(
        "ImageNet", "top-1", "classes", 50_000, "imagenet2012",
        "the most probable of all classes is right",
        "Russakovsky et al., 2015",
    ),
    "imagenet_a": Suite(
        "ImageNet-A", "top-1", "classes", 7_500, "imagenet_a",
        "the most probable of its 200 classes is right; other outputs are ignored",
        "Hendrycks et al., CVPR 2021; hendrycks/natural-adv-examples, eval.py",
        among=_A,
    ),
    "imagenet_r": Suite(
        "ImageNet-R", "top-1", "classes", 30_000, "imagenet_r",
        "the most probable of its 200 classes is right; other outputs are ignored",
        "Hendrycks et al., ICCV 2021; hendrycks/imagenet-r, eval.py",
        among=_R,
    ),
    "imagenet_sketch": Suite(
        "ImageNet-Sketch", "top-1", "classes", 50_889, "imagenet_sketch",
        "the most probable of all classes is right",
        "Wang et al., NeurIPS 2019; HaohanWang/ImageNet-Sketch",
    ),
    "imagenet_v2": Suite(
        "ImageNet-V2", "top-1", "numbers", 10_000, "imagenet_v2/matched-frequency",
        "the most probable of all classes is right; folders are named by the index of the class",
        "Recht et al., ICML 2019; modestyachts/ImageNetV2",
    ),
    "imagenet_real": Suite(
        "ImageNet-ReaL", "ReaL", "reassessed", 50_000, "imagenet2012_real",
        "the most probable of all classes is one of the labels; images without labels are skipped",
        "Beyer et al., 2020; google-research/reassessed-imagenet",
    ),
    "imagenet_c": Suite(
        "ImageNet-C", "mCE", "corruptions", 50_000, None,
        "the error summed over five severities, divided by AlexNet's; the mean of 15 corruptions",
        "Hendrycks and Dietterich, ICLR 2019; hendrycks/robustness, ImageNet-C/test.py",
        corruptions=_C, extras=_C_EXTRAS,
    ),
    "imagenet_c_bar": Suite(
        "ImageNet-C-bar", "error", "corruptions", 50_000, None,
        "the mean error of 10 corruptions in five severities",
        "Mintun et al., NeurIPS 2021; facebookresearch/augmentation-corruption, test_c_bar.py",
        corruptions=_C_BAR,
    ),
}  # fmt: skip

# ImageNet-C in TensorFlow Datasets, one configuration per corruption and severity. It is generated
# from the validation images with other interpolation and random numbers, so it is not the published
# set. Its motion_blur and snow call a program that is not public.
GENERATED_C = "imagenet2012_corrupted"


def part_names(suite: Suite) -> tuple[str, ...]:
    """Returns the names of the parts that are scored at a time, such as "fog/3"."""
    corruptions = (*suite.corruptions, *suite.extras)
    return tuple(f"{each}/{severity}" for each in corruptions for severity in SEVERITIES) or (
        WHOLE,
    )


def rule_of(suite: Suite, size: int) -> str:
    """Describes how images are prepared and scored for a model of some size."""
    if suite.layout == "corruptions":
        prepared = (
            f"files of {size} px as they are"
            if size == CORRUPTED_SIZE
            else f"files of {CORRUPTED_SIZE} px resized to {size} px as a whole"
        )
    elif size >= WARP_FROM:
        prepared = f"images warped to {size} px"
    else:
        prepared = f"short side resized to {int(size / CROPPED_SHARE)} px, center crop of {size} px"
    return f"{prepared}; {suite.scores}"

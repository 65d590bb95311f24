import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_convnext  # noqa: F401  (before TensorFlow, as its kernels are chosen by that)

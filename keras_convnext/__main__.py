"""`python -m keras_convnext`: the same as the command `keras-convnext`."""

from keras_convnext.cli import main

main()

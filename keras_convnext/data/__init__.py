"""Images and labels, from wherever they lie, as tf.data."""

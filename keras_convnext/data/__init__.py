"""Labeled images from folders, shards, tables and TensorFlow Datasets, as `tf.data`."""

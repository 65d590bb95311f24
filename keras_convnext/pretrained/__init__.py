"""Published checkpoints, and how they become the weights of a Keras model."""

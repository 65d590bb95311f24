"""What is published, and how it becomes the weights of a Keras model."""

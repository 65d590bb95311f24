"""Rotated boxes: their geometry, the network that finds them, and its data, scores and recipes."""

"""Detection: objects, their boxes, and their masks."""

"""A recipe run: data, augmentation, optimizer, `model.fit`."""

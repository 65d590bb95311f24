"""The length of a run and of its parts, in updates."""

from typing import NamedTuple

from keras_convnext.training.recipe import Recipe


class Length(NamedTuple):
    """The length of a run and of its parts, in updates.

    Args:
        updates: int. The whole run.
        epoch: int. One pass over the examples; those that do not fill a batch are left out.
        evaluation: int. From one evaluation to the next.
        warmup: int. The warmup of the learning rate.
        frozen: int. The start, in which only the head is trained.
        milestones: tuple of int. Updates at which the learning rate falls.
    """

    updates: int
    epoch: int
    evaluation: int
    warmup: int
    frozen: int
    milestones: tuple[int, ...]


def length_of(recipe: Recipe, examples: int) -> Length:
    """Converts the epochs of a recipe to updates.

    Args:
        recipe: Recipe. The recipe.
        examples: int. Number of training examples.

    Raises:
        ValueError: If there are fewer examples than one batch.
    """
    own = recipe.schedule
    epoch = examples // recipe.batch.batch_size
    if not epoch:
        raise ValueError(
            f"An epoch has {examples:,} examples, fewer than one batch. Set batch_size to "
            f"{examples} or less. Received: batch_size={recipe.batch.batch_size}"
        )
    unit, updates = (1, own.updates) if own.updates else (epoch, (own.epochs or 0) * epoch)
    return Length(
        updates=updates,
        epoch=epoch,
        evaluation=own.evaluation_updates or epoch,
        warmup=own.warmup_updates or round(own.warmup_epochs * epoch),
        frozen=round(own.frozen_epochs * epoch),
        milestones=tuple(round(milestone * unit) for milestone in own.milestones),
    )

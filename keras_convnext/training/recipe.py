"""The fields that every recipe has. A task adds its own, as `Classification` does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

ALGORITHMS = ("adamw", "muon")
DECAYS = ("cosine", "polynomial", "steps", "constant")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How an update changes the weights.

    Args:
        learning_rate: float. Peak learning rate, for the batch size of the recipe.
        weight_decay: float. Decoupled weight decay, for tensors of rank 2 and more.
        algorithm: str. One of `ALGORITHMS`.
        beta_2: float. Decay rate of the second moment of AdamW.
        layer_decay: float. Learning rate factor from one group of layers to the group below it; 1
            to disable layer-wise decay.
        layer_groups: str. The groups of layers, one of `GROUPINGS`; see `AdamW`.
        frozen: str or None. Regular expression for the paths of weights that are not trained.
        no_decay: str or None. Regular expression for the paths of weights without weight decay, in
            addition to those of rank 1.
        clip_norm: float or None. Maximum global norm of the gradients.
        ema_decay: float or None. Decay of the moving average of the weights.
    """

    learning_rate: float
    weight_decay: float
    algorithm: str = "adamw"
    beta_2: float = 0.999
    layer_decay: float = 1.0
    layer_groups: str = "official"
    frozen: str | None = None
    no_decay: str | None = None
    clip_norm: float | None = None
    ema_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long a run takes, and its learning rate over time.

    The length is given in epochs or in updates, and so is the warmup.

    Args:
        epochs: int or None. Number of epochs.
        updates: int or None. Number of updates, instead of epochs.
        warmup_epochs: float. Epochs of linear warmup.
        warmup_updates: int. Updates of linear warmup, instead of epochs.
        warmup_start: float. Share of the learning rate at the start of the warmup.
        decay: str. One of `DECAYS`.
        min_learning_rate: float. Final learning rate of "cosine" and "polynomial".
        power: float. Exponent of "polynomial"; 1 for a linear decay.
        milestones: tuple of float. Epochs or updates, as in the length, after each of which "steps"
            multiplies the learning rate by `step_factor`.
        step_factor: float. See `milestones`.
        frozen_epochs: float. Epochs at the start in which only the head is trained.
        evaluation_updates: int or None. Updates between evaluations. Defaults to None, for an
            evaluation after each epoch.
        save_updates: int or None. Updates between checkpoints, in addition to one after each
            evaluation.
    """

    epochs: int | None = None
    updates: int | None = None
    warmup_epochs: float = 0.0
    warmup_updates: int = 0
    warmup_start: float = 0.0
    decay: str = "cosine"
    min_learning_rate: float = 1e-6
    power: float = 1.0
    milestones: tuple[float, ...] = ()
    step_factor: float = 0.1
    frozen_epochs: float = 0.0
    evaluation_updates: int | None = None
    save_updates: int | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The batch of an update, and the devices that share it in the reference layout.

    Args:
        batch_size: int. Examples per update, over all devices and accumulated batches.
        device_batch: int. Batch size per device in the reference layout. Gradients are accumulated
            where the devices hold fewer than `batch_size` examples.
        devices: int. Number of devices in the reference layout.
        precision: str. One of `PRECISIONS`.
        remat: bool. Whether blocks are recomputed for the gradient to save memory.
    """

    batch_size: int
    device_batch: int = 128
    devices: int = 1
    precision: str = "float32"
    remat: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run except for the network, the data and the output folder.

    Args:
        name: str. Name of the recipe.
        source: str. Where the settings come from.
        optimizer: Optimizer.
        schedule: Schedule.
        batch: Batch.
        seed: int. Seed of the weights, the order and the augmentation.
    """

    name: str
    source: str
    optimizer: Optimizer
    schedule: Schedule
    batch: Batch
    seed: int = 0


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


@dataclass(frozen=True)
class RecipeFamily(Generic[AnyRecipe]):
    """A recipe, and the settings that differ for some networks.

    Args:
        recipe: Recipe. The settings of all other networks.
        networks: dict from network names to settings, by names as in `--set`. "a" stands for all
            networks "a/b" that are not listed.
        needs: tuple of str. Settings that another network must be given, because the recipe was
            published for these networks only.
    """

    recipe: AnyRecipe
    networks: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

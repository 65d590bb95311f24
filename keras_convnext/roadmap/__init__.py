"""The road from ResNet to ConvNeXt: each step of figure 2 as a network.

Example:

```python
before = keras_convnext.roadmap.network("patchify")
after = keras_convnext.roadmap.network("depthwise")
```
"""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names

if TYPE_CHECKING:
    from keras_convnext.roadmap.cost import parts
    from keras_convnext.roadmap.drawing import draw
    from keras_convnext.roadmap.graph import network
    from keras_convnext.roadmap.steps import REGIMES, STEPS, Figures, Regime, Step, find
    from keras_convnext.roadmap.torchvision import load_torchvision

__all__ = [
    "REGIMES",
    "STEPS",
    "Figures",
    "Regime",
    "Step",
    "draw",
    "find",
    "load_torchvision",
    "network",
    "parts",
]

_NAMES = {
    "cost": ("parts",),
    "drawing": ("draw",),
    "graph": ("network",),
    "steps": ("REGIMES", "STEPS", "Figures", "Regime", "Step", "find"),
    "torchvision": ("load_torchvision",),
}

if not TYPE_CHECKING:  # otherwise type checkers would accept any attribute
    __getattr__, __dir__ = lazy_names(__name__, _NAMES)

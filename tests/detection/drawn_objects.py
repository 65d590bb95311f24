"""Pictures of drawn shapes with COCO's annotations: the generator of `benchmarks/detection.py`."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_SPEC = spec_from_file_location(
    "benchmarks_detection", Path(__file__).parents[2] / "benchmarks" / "detection.py"
)
_MODULE = module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
draw = _MODULE.draw

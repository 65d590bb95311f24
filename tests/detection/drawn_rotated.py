"""Pictures of drawn rotated shapes: the generator of `benchmarks/rotated_convergence.py`."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(_BENCHMARKS))  # for its own import
_SPEC = spec_from_file_location("rotated_convergence", _BENCHMARKS / "rotated_convergence.py")
_MODULE = module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)
sys.path.remove(str(_BENCHMARKS))
draw = _MODULE.draw

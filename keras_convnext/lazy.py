"""Lazy imports: the names of a package are imported on first use.

With them, `import keras_convnext` and the commands that need no network take milliseconds instead
of the seconds that importing Keras and its backend takes.
"""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, Collection[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Creates `__getattr__` and `__dir__` for a package (PEP 562).

    Submodules can be accessed as well, as if they had been imported.

    Args:
        package: str. `__name__` of the package.
        names: dict of str to collection of str. The public names of each module of the package.

    Returns:
        tuple of functions: `__getattr__` and `__dir__`.
    """
    modules = {name: module for module, own in names.items() for name in own}
    namespace = import_module(package).__dict__

    def get(name: str) -> Any:
        if name in modules:
            value = getattr(import_module(f"{package}.{modules[name]}"), name)
        elif name.startswith("_"):
            raise _missing(package, name)
        else:
            try:
                value = import_module(f"{package}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{package}.{name}":
                    raise
                raise _missing(package, name) from None
        namespace[name] = value
        return value

    return get, lambda: sorted({*namespace, *namespace["__all__"]})


def _missing(package: str, name: str) -> AttributeError:
    return AttributeError(f"module {package!r} has no attribute {name!r}", name=name)

"""Names of a package that are imported when they are first used.

So `import keras_convnext` and the commands that need no network take milliseconds, not the seconds
that Keras and its backend take.
"""

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, Collection[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes `__getattr__` and `__dir__` of a package (PEP 562).

    Its submodules are found too, as if they had all been imported.

    Args:
        package: str. `__name__` of the package.
        names: dict of str to collection of str. For modules within the package, what is theirs.

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

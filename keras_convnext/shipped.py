"""What comes with the package besides its code."""

from pathlib import Path


def shipped(place: str) -> Path:
    """Finds a file or folder of `weights` or `examples`.

    A wheel has them in the package, a repository beside it.

    Args:
        place: str. Such as "examples/photos".

    Raises:
        FileNotFoundError: If it is not there.
    """
    package = Path(__file__).parent
    for found in (package / place, package.parent / place):
        if found.exists():
            return found
    raise FileNotFoundError(
        f"{place} comes with the package and is not there: install it again. Looked in {package}"
    )

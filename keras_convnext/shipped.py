"""Data files that are shipped with the package."""

from pathlib import Path


def shipped(place: str) -> Path:
    """Returns the path of a file or folder in `weights` or `examples`.

    A wheel contains them inside the package, the repository next to it.

    Args:
        place: str. Relative path, such as "examples/photos".

    Raises:
        FileNotFoundError: If it does not exist.
    """
    package = Path(__file__).parent
    for found in (package / place, package.parent / place):
        if found.exists():
            return found
    raise FileNotFoundError(
        f"{place} is missing from the installation: reinstall the package. Looked in {package}"
    )

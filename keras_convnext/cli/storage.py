"""The commands `download` and `cache`."""

from collections.abc import Callable
from typing import Annotated

import typer

from keras_convnext.cli.application import Json, NetworkOfWeights, TagNames, command
from keras_convnext.cli.loading import show_downloads
from keras_convnext.cli.terminal import note, track, write, write_json, write_table
from keras_convnext.pretrained.catalog import find, list_weights
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.folder import CachedFile, cache_folder, cached_files, remove_cached

cache = typer.Typer(
    help="List, measure, verify and remove downloaded weights.", rich_markup_mode=None
)


def download(
    model: NetworkOfWeights,
    weights: TagNames = None,
    sha256: Annotated[
        str | None,
        typer.Option(
            help="SHA-256 that the published file must have. Without it, a file whose publisher "
            "provides no digest is accepted if it has the right network and valid numbers."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download published weights, to load them offline later.

    Prints the size, license, source and destination of each file. Interrupted downloads are
    resumed, and complete files are not downloaded again.

    Environment variables: KERAS_CONVNEXT_OFFLINE=1 disables downloads. KERAS_CONVNEXT_CACHE sets
    the folder, KERAS_CONVNEXT_MIRROR the addresses to use instead of the publishers',
    KERAS_CONVNEXT_ALLOW_HTTP=1 allows addresses that are not encrypted, HTTPS_PROXY sets the proxy,
    and REQUESTS_CA_BUNDLE the trusted certificates.
    """
    show_downloads()
    from keras_convnext.pretrained.cache import download_weights

    tags = weights or [list_weights(model)[0].tag]
    if sha256 is not None and len(tags) > 1:
        raise typer.BadParameter("--sha256 is the digest of one file: name one of the weights")
    rows: list[dict[str, object]] = []
    for tag in tags:
        license = find(model, tag)[0].license
        path = download_weights(model, tag, sha256)
        rows.append({"model": model, "weights": tag, "license": license.name, "terms": license.url,
                     "bytes": path.stat().st_size, "file": str(path)})  # fmt: skip
    if as_json:
        write_json(rows)
    else:
        write(*(str(row["file"]) for row in rows))


def list_files(as_json: Json = False) -> None:
    """List the files in the cache."""
    files = cached_files()
    if as_json:
        write_json([_as_json(file) for file in files])
        return
    rows = [
        (file.path.name, f"{file.bytes / 1e6:,.1f}", file.kind,
         file.checkpoint.model if file.checkpoint else "",
         file.checkpoint.tag if file.checkpoint else "")
        for file in files
    ]  # fmt: skip
    if rows:
        write_table(("file", "MB", "kind", "model", "weights"), rows, ["MB"])
    note(f"{cache_folder()}: {_size(files)}")


def measure(as_json: Json = False) -> None:
    """Show the location and size of the cache."""
    files = cached_files()
    total = sum(file.bytes for file in files)
    if as_json:
        write_json({"folder": str(cache_folder()), "files": len(files), "bytes": total})
    else:
        write(f"{cache_folder()}: {_size(files)}")


def remove(
    names: Annotated[
        list[str] | None, typer.Argument(help="File names, networks, or weights such as imagenet.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove all files.")] = False,
    as_json: Json = False,
) -> None:
    """Remove files from the cache. They are downloaded again when needed."""
    if bool(names) == everything:
        raise typer.BadParameter("name the files to remove, or pass --all")
    removed = remove_cached(None if everything else names or ())
    if as_json:
        write_json([_as_json(file) for file in removed])
    else:
        write(*(file.path.name for file in removed))
        note(f"Removed {_size(removed)}")


def verify_files(as_json: Json = False) -> None:
    """Verify the checksum and numbers of each file.

    Only published files have a checksum. The exit code is 1 if a file is damaged.
    """
    from keras_convnext.pretrained.checks import check_numbers
    from keras_convnext.pretrained.digests import check_digest

    files = [file for file in cached_files() if file.kind in ("published", "port")]
    problems: dict[str, str | None] = {}
    for file in track(files, "Verifying", "files", len(files)):
        try:
            if file.kind == "published":
                check_digest(file.path, file.checkpoint)
            check_numbers(file.path)
            problems[file.path.name] = None
        except (CheckpointError, OSError) as error:
            problems[file.path.name] = str(error)
    if as_json:
        write_json([{"file": name, "error": error} for name, error in problems.items()])
    else:
        write(*(f"{'failed' if error else 'passed'}  {name}" for name, error in problems.items()))
        for problem in filter(None, problems.values()):
            note(problem, "red")
    if any(problems.values()):
        raise typer.Exit(1)


def _as_json(file: CachedFile) -> dict[str, object]:
    row = file.checkpoint
    return {
        "file": str(file.path),
        "bytes": file.bytes,
        "kind": file.kind,
        "model": row and row.model,
        "weights": row and row.tag,
    }


def _size(files: list[CachedFile]) -> str:
    total = sum(file.bytes for file in files)
    return f"{len(files)} file{'s' * (len(files) != 1)}, {total / 1e6:,.1f} MB"


_COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_files,
    "size": measure,
    "remove": remove,
    "verify": verify_files,
}
for name, function in _COMMANDS.items():
    command(name, function, cache)

"""The command `tile`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_convnext.cli.application import Json
from keras_convnext.cli.terminal import Bar, note, write_json


def tile(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of DOTA, with images and labelTxt of each split, or of YOLO-OBB."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="Folder for the tiles, in the format of DOTA.")],
    size: Annotated[int, typer.Option(min=32, help="Side of a tile in pixels.")] = 1024,
    overlap: Annotated[int, typer.Option(min=0, help="Pixels that neighbors share.")] = 512,
    skip_broken: Annotated[
        bool, typer.Option("--skip-broken", help="Skip broken objects instead of stopping.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes.", show_default="one per core")
    ] = None,
    as_json: Json = False,
) -> None:
    """Cut large scenes with rotated objects into tiles, as DOTA's tools do.

    The same command continues an interrupted run.
    """
    from keras_convnext.detection.rotated.tiling import write_tiles

    with Bar("Tiling", "scenes") as bar:
        done = write_tiles(
            source, target, size=size, overlap=overlap, skip_broken=skip_broken, workers=workers,
            progress=bar.update,
        )  # fmt: skip
    if as_json:
        write_json({"output": str(target), **done._asdict()})
    else:
        note(
            f"Wrote {target}: {done.tiles:,} tiles of {done.scenes:,} scenes, "
            f"with {done.objects:,} objects"
        )

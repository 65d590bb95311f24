"""Progress shown in a terminal."""

from rich.console import Console
from rich.progress import Progress, ProgressColumn


class TransientProgress(Progress):
    """Shows progress that is removed at its end, and nothing where the output is not a terminal.

    Args:
        *columns: rich.progress.ProgressColumn.
        console: rich.console.Console. The output. What libraries print is not part of it.
    """

    def __init__(self, *columns: ProgressColumn, console: Console) -> None:
        super().__init__(
            *columns,
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def stop(self) -> None:
        """Removes the display. Before version 14.3, rich prints an empty line in its place."""
        if not self.disable:
            super().stop()

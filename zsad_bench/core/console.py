"""Everything the command line says: one console, tables, and the bar that shows progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from zsad_bench.core.laps import Charge

# A file or pipe has no width of its own: wide enough for every column.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 130)
err = Console(stderr=True, highlight=False)


def warn(message: str) -> None:
    """A warning that nobody can overlook, in one paragraph on the error stream."""
    err.print(Text(f"warning: {message}", style="bold yellow"), soft_wrap=True)


def fail(message: str) -> None:
    """An error in one line on the error stream."""
    err.print(Text(f"error: {message}", style="bold red"), soft_wrap=True)


@contextmanager
def status(message: str) -> Iterator[None]:
    """A line on the error stream of a terminal while something takes long; nothing elsewhere."""
    if err.is_terminal:
        with err.status(message):
            yield
    else:
        yield


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} images/s" if task.speed else "", style="dim")


def progress(shown: bool = True) -> Progress:
    """A progress bar over images: share done, images per second, time remaining."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    return Progress(*columns, console=err, transient=True, disable=not shown)


class JobProgress:
    """The bars of one job: images predicted, and, while the encoder is at work, images encoded."""

    def __init__(self, name: str, total: int, shown: bool = True) -> None:
        self._progress = progress(shown)
        self._predicted = self._progress.add_task(name, total=total)
        self._encoding = self._progress.add_task("encoding", total=0, visible=False)

    def __enter__(self) -> JobProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def category(self, description: str) -> None:
        """Another category begins."""
        self._progress.update(self._predicted, description=description)

    def predicted(self, count: int) -> None:
        """So many more images are predicted."""
        self._progress.update(self._encoding, visible=False)
        self._progress.advance(self._predicted, count)

    @property
    def listener(self) -> Listener:
        """Shows how encoding goes on."""
        return Listener(
            starts=lambda count: self._progress.reset(self._encoding, total=count, visible=True),
            encoded=lambda count: self._progress.advance(self._encoding, count),
        )


def _ignore(_: int) -> None: ...


def _free(_: Charge) -> None: ...


def _untimed(_: str) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Listener:
    """Who wants to know how encoding goes on.

    Attributes:
        starts: hears how many images of a category have to be encoded.
        encoded: hears how many more are done.
        time: context manager around a stage: ``setup`` (weights are read, a GPU wakes up), ``load`` (images are read),
            ``encode``, or ``read`` (stored features). A stage inside another one interrupts it.
        charge: hears what features would have cost one who encodes them alone, whenever some are handed out.
    """

    starts: Callable[[int], None] = _ignore
    encoded: Callable[[int], None] = _ignore
    time: Callable[[str], AbstractContextManager[None]] = _untimed
    charge: Callable[[Charge], None] = _free

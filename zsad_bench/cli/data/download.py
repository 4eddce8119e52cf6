"""``zsad-bench data download``: archives whose licence allows it, with progress and checksum.

The archive is unpacked only after its SHA-256 is right, and neither the archive nor the new folder appears under its
name before it is complete. A download that breaks leaves nothing; its error says how to fetch the archive with a tool
that resumes, and where to put it.
"""

from __future__ import annotations

import shlex
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from zsad_bench.core import console
from zsad_bench.core.errors import UserError
from zsad_bench.engine.dataset_card import Card

_CHUNK = 1 << 16
_TIMEOUT = 30  # seconds without a byte


def download(card: Card, folder: Path, mirror: str | None = None, keep_archive: bool = False) -> Path:
    """Fetch and unpack a dataset; returns the folder with its files.

    An archive that lies beside the folder under its usual name is used as it is if its SHA-256 is right.

    Args:
        card: what to fetch.
        folder: receives the files; new, or empty.
        mirror: a place that has the archive under its usual name, instead of the publisher's address.
        keep_archive: leave the archive beside the files.

    Raises:
        UserError: registration is needed (says where), the connection, checksum, disk or archive is not good.
    """
    source = card.download
    if source is None:
        how = f" ({card.about.obtain})" if card.about.obtain else ""
        raise UserError(
            f"dataset={card.key}: cannot be downloaded directly; get it from {card.page or 'its publisher'}{how}, "
            f"unpack it and set dataset.root. Licence: {card.licence}"
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: the folder is not empty; give a new one with --to")
    url = source.url if mirror is None else f"{mirror.rstrip('/')}/{source.file_name}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        archive = folder.parent / source.file_name
        _fetch(url, archive, source.sha256)
        _unpack(archive, folder)
        if not keep_archive:
            archive.unlink()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); free space or choose another folder with --to"
        ) from None
    return folder


class _Bar:
    """A progress bar as pooch wants it: it sets the size before the first byte comes, which is when space is checked.

    Args:
        archive: the file to be written, which names the bar.
        progress: shows the bar.
    """

    def __init__(self, archive: Path, progress: Progress) -> None:
        self._folder, self._progress = archive.parent, progress
        self._task = progress.add_task(archive.name, total=None)
        self._total = 0

    @property
    def total(self) -> int:
        """Bytes of the archive, 0 if the server does not say."""
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if size > free:
            raise UserError(
                f"{self._folder}: the archive alone needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; "
                f"choose another folder with --to"
            )
        self._total = size
        self._progress.update(self._task, total=size or None)

    def update(self, count: int) -> None:
        """So many bytes more have come."""
        self._progress.advance(self._task, count)

    def reset(self) -> None:
        """Count from zero."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """All is there; the bar goes with its ``Progress``."""


def _fetch(url: str, archive: Path, sha256: str) -> None:
    try:
        import pooch
        import requests
    except ImportError:
        raise UserError("data download needs pooch: pip install 'zsad-bench[download]'") from None
    pooch.get_logger().setLevel("WARNING")
    columns = (TextColumn(archive.name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.err, transient=True) as progress:
        get = pooch.HTTPDownloader(
            _Bar(archive, progress), _CHUNK, timeout=_TIMEOUT, headers={"Accept-Encoding": "identity"}
        )
        try:
            pooch.retrieve(url, f"sha256:{sha256}", fname=archive.name, path=archive.parent, downloader=get)
        except requests.HTTPError as error:
            answer = str(error).split(" for url", 1)[0]
            raise UserError(f"{url}: the server answers {answer}; try again later or use --mirror <address>") from None
        except requests.RequestException:
            resume = shlex.join(["curl", "-L", "-C", "-", "-o", str(archive), url])
            raise UserError(
                f"{url}: the server cannot be reached, or the connection was cut; try again or use --mirror <address>. "
                f"For a large archive repeat the following, which goes on where it stopped, until it ends well; then "
                f"give the same command again, which checks and unpacks the file: {resume}"
            ) from None
        except ValueError:
            raise UserError(
                f"{url}: the file is not the published one (its SHA-256 is not {sha256}); it was removed. Try again or "
                f"use --mirror <address>"
            ) from None


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack to ``folder``, which holds everything or is not there.

    Not by pooch, which on Python 3.11 lets a tar archive write outside of the folder.

    Raises:
        UserError: a damaged archive, or one that would write elsewhere.
        OSError: the disk is full or cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            fresh = Path(temporary) / "fresh"
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as zipped:
                    zipped.extractall(fresh)
            else:
                with tarfile.open(archive) as tarred:
                    tarred.extractall(fresh, filter="data")
            fresh.replace(folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive}: cannot be unpacked ({error}); remove it and download it again") from None

"""``zsad-bench data download``: archives whose licence allows it, with progress, checksum and resume.

A connection that breaks leaves ``<archive>.part`` beside the new folder; the next attempt, in the same run or a later
one, asks the server for the rest. The archive is unpacked only after its SHA-256 is right, and the new folder appears
only when it is complete.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from zsad_bench.core import console
from zsad_bench.core.errors import UserError
from zsad_bench.engine.dataset_card import Card

ATTEMPTS = 4
_CHUNK = 1 << 16
_TIMEOUT = 30  # seconds without a byte

Advance = Callable[[int, int | None], None]


def download(card: Card, folder: Path, mirror: str | None = None, keep_archive: bool = False) -> Path:
    """Fetch and unpack a dataset; returns the folder with its files.

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
        archive = _fetch(url, folder.parent, source.file_name, source.sha256)
        _unpack(archive, folder)
        if not keep_archive:
            archive.unlink()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}); free space or choose another folder with --to. "
            f"The same command goes on where it stopped"
        ) from None
    return folder


def _fetch(url: str, folder: Path, file_name: str, sha256: str) -> Path:
    try:
        import pooch
        import requests
    except ImportError:
        raise UserError("data download needs pooch: pip install 'zsad-bench[download]'") from None
    pooch.get_logger().setLevel("WARNING")
    columns = (TextColumn(file_name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.err, transient=True) as progress:
        task = progress.add_task(file_name, total=None)

        def fetch(address: str, output: str | IO[bytes], _: object) -> None:
            part = folder / f"{file_name}.part"
            _resume(address, part, lambda done, total: progress.update(task, completed=done, total=total))
            part.replace(Path(str(output)))

        try:
            found = pooch.retrieve(url, f"sha256:{sha256}", fname=file_name, path=folder, downloader=fetch)
        except requests.RequestException as error:
            raise UserError(
                f"{url}: {_reason(error)}; the same command goes on where it stopped, or use --mirror <address>"
            ) from None
        except ValueError:
            raise UserError(
                f"{url}: the file is not the published one (its SHA-256 is not {sha256}); it was removed. Try again or "
                f"use --mirror <address>"
            ) from None
    return Path(found)


def _resume(url: str, part: Path, advance: Advance) -> None:
    """Download ``url`` to ``part``, keeping what is there already. Raises requests.RequestException or OSError."""
    import requests

    for attempt in range(1, ATTEMPTS + 1):
        try:
            _receive(url, part, advance)
            return
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.Timeout):
            if attempt == ATTEMPTS:
                raise


def _receive(url: str, part: Path, advance: Advance) -> None:
    import requests

    done = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing; the checksum will tell
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            done = 0  # this server cannot resume
        length = response.headers.get("Content-Length")
        total = done + int(length) if length is not None else None
        _require_space(part.parent, 0 if total is None else total - done)
        with part.open("ab" if done else "wb") as file:
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                advance(done, total)
    if total is not None and done < total:
        raise requests.ConnectionError(f"the connection was cut after {done} of {total} bytes")


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder}: the archive alone needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; "
            f"choose another folder with --to"
        )


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answers {response.status_code} {response.reason}"
    cut = str(error).startswith("the connection was cut")
    return str(error) if cut else "the server cannot be reached, or the connection was cut"


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack to ``folder``, which holds everything or is not there.

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

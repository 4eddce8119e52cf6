"""``.npz`` files of arrays that may lie in a temporary file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TypeVar
from zipfile import ZIP_STORED, ZipFile

import numpy as np
from numpy.typing import NDArray

from zsad_bench.core.spooled import Stack

T = TypeVar("T", bound=np.generic)


def save_arrays(
    file: IO[bytes],
    arrays: Mapping[str, NDArray[np.generic]],
    stacks: Mapping[str, Stack[T]],
    compression: int = ZIP_STORED,
) -> None:
    """Write an ``.npz`` file as numpy does, the stacks array by array."""
    with ZipFile(file, "w", compression) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array)
        for name, stack in stacks.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                descr = np.lib.format.dtype_to_descr(stack.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": stack.shape}
                np.lib.format.write_array_header_1_0(member, header)
                for part in stack:
                    member.write(part.data)

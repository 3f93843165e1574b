"""The bytes of .npy files, good and bad."""

import io

import numpy as np
import numpy.typing as npt


def npy(array: npt.ArrayLike) -> bytes:
    """Return an array as a .npy file, pickled where it holds objects."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz(array: npt.ArrayLike) -> bytes:
    """Return an array as the only one of a .npz archive."""
    buffer = io.BytesIO()
    np.savez(buffer, a=array)
    return buffer.getvalue()


OBJECTS = npy(np.array([{"a": 1}], object))
"""A file whose array is a pickle."""

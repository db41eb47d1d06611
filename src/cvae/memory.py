"""How much memory is used at once, and how freed memory is kept for the next use."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's <malloc.h>
NEVER = -1
PIXELS = 28 * 28


def at_once(count: int, pixels: int) -> int:
    """How many images of so many pixels take the memory of a count of 28×28; 1 or more."""
    return max(1, count * PIXELS // max(PIXELS, pixels))


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors instead of giving it back.

    glibc returns each big buffer to the system as soon as it is free, and the page faults of the
    next one cost several times what an elementwise operation on it does. With other C libraries
    nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, NEVER)

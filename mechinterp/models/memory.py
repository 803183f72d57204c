"""How much memory is free, and byte counts in readable units.

>>> from mechinterp.models.memory import readable
>>> readable(3 * 2**20)
'3.0 MiB'
"""

import os
from pathlib import Path

import torch

from mechinterp.core.interrupts import holds_signals

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_UNKNOWN = 1 << 62


@holds_signals
def available_bytes(device: torch.device) -> int:
    """The bytes that can still be allocated on the device; a huge number if that is not known.

    On the CPU the least of three: free memory, this process's limit, and its control group's.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_free_on_the_machine(), _left_of_the_limit(), _left_of_the_group())


def _free_on_the_machine() -> int:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return _UNKNOWN


def _left_of_the_limit() -> int:
    """What RLIMIT_AS leaves for this process."""
    size = Path("/proc/self/statm")
    if resource is None or not size.exists():
        return _UNKNOWN
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = int(size.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return _UNKNOWN if limit == resource.RLIM_INFINITY else max(0, limit - taken)


def _left_of_the_group() -> int:
    """What a control group (a container) leaves. Its cached files count as free."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        taken = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return _UNKNOWN
    cached = int(stat.get("inactive_file", 0))
    return _UNKNOWN if limit == "max" else max(0, int(limit) - taken + cached)


def readable(n_bytes: int) -> str:
    """A number of bytes with a unit."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"

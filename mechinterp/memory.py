"""How much memory is free, and bytes as people read them.

>>> from mechinterp.memory import readable
>>> readable(3 * 2**20)
'3.0 MiB'
"""

import os
from pathlib import Path

import torch


def available_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on the device; a large number where nobody tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 62


def readable(n_bytes: int) -> str:
    """Bytes with a unit."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"

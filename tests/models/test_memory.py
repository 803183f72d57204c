import torch

from mechinterp.models.memory import available_bytes, readable


def test_bytes_as_people_read_them():
    assert readable(0) == "0 B"
    assert readable(1023) == "1023 B"
    assert readable(1024) == "1.0 KiB"
    assert readable(1536) == "1.5 KiB"
    assert readable(5 * 2**20 + 2**19) == "5.5 MiB"
    assert readable(7 * 2**30) == "7.0 GiB"
    assert readable(3 * 2**50) == "3072.0 TiB"


def test_free_memory_is_less_than_there_is_and_more_than_a_test_needs():
    free = available_bytes(torch.device("cpu"))
    assert isinstance(free, int)
    with open("/proc/meminfo") as f:
        total = int(next(line for line in f if line.startswith("MemTotal")).split()[1]) * 1024
    assert 1 << 24 < free <= total

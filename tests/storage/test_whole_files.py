"""A file is there whole or not at all, with the modes of the umask, and read within memory."""

import os
import resource
import signal
import time

import pytest

from mechinterp.storage import whole_files
from mechinterp.storage.whole_files import read_whole, write_whole


@pytest.mark.usefixtures("as_users_call_it")
def test_a_failed_write_leaves_the_old_file_and_no_scraps(tmp_path):
    file = tmp_path / "a.txt"
    write_whole(file, b"old")
    with pytest.raises(TypeError):
        write_whole(file, "text, not bytes")
    assert file.read_bytes() == b"old"
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o027])
def test_modes_follow_the_umask(tmp_path, mask):
    """F6: results were 0644 under umask 077."""
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    """F6: scratch files stayed after a kill, where no folder of parts was."""
    pid = os.fork()
    if pid == 0:
        os.fsync = lambda descriptor: time.sleep(60)
        write_whole(tmp_path / "a.txt", b"half")
        os._exit(0)
    while not list(tmp_path.iterdir()):
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    other = tmp_path / ".b.txt.another_host.1.x"
    other.write_bytes(b"of another machine")
    write_whole(tmp_path / "a.txt", b"whole")
    assert sorted(f.name for f in tmp_path.iterdir()) == [other.name, "a.txt"]


def test_a_file_that_may_not_grow_is_a_sentence(tmp_path):
    """A limit on the size of a file, where no small disk can be mounted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (99, hard))
    try:
        with pytest.raises(OSError, match=r"a.txt could not be written: File too large.*again"):
            write_whole(tmp_path / "a.txt", bytes(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_sizes_are_checked_before_memory_is_taken(tmp_path, monkeypatch, refuses):
    file = tmp_path / "large"
    with file.open("wb") as opened:
        opened.truncate(1 << 40)
    refuses(lambda: read_whole(file), "large, of 1.0 TiB, takes 1.0 TiB", "free")
    monkeypatch.setattr(whole_files, "available_bytes", lambda device: 1 << 20)
    (tmp_path / "small").write_bytes(bytes(1 << 18))
    refuses(lambda: read_whole(tmp_path / "small", 12), "3.0 MiB of memory, and 1.0 MiB are free")
    assert len(read_whole(tmp_path / "small", 2)) == 1 << 18


def test_pipes_and_devices_are_not_read(tmp_path, refuses):
    os.mkfifo(tmp_path / "pipe")
    refuses(lambda: read_whole(tmp_path / "pipe"), "pipe is no file", "ordinary file")

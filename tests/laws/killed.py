"""A program that kills a sweep again and again, and checks each time what it left on the disk.

    python tests/laws/killed.py 60

Each time a child process goes on with the sweep and is killed at a random moment. No file may be
torn, and what comes out in the end must have the bytes of a sweep that nobody killed. Then two
children write one folder at once. Prints how many were killed, and how many had finished before.
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":  # the tests, which also look for examples here, import nothing
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import safetensors.numpy
    from conftest import tiny_model

    from mechinterp import Prompts, Site, log_prob, sweep, zero


def swept(model, folder):
    prompts = Prompts.from_ids([[3, 1, 4, 1, 5], [5, 9, 2, 6]])
    over = {"layer": range(3), "head": range(4), "pos": range(4)}

    def arm(layer, head, pos):
        return zero(Site("z", layer, head, pos))

    return sweep(model, prompts, over, arm, log_prob(3), out=folder, budget_bytes=1)


def child(model, folder):
    """A process that goes on with the sweep, and ends."""
    pid = os.fork()
    if pid == 0:
        swept(model, folder)
        os._exit(0)
    return pid


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name[0] != "."}


def check_no_torn_file(folder):
    for name, found in content(folder).items() if folder.exists() else ():
        if name.startswith("part-"):
            safetensors.numpy.load(found)
        else:
            assert found.endswith(b"}"), name


def main(times):
    model, chance = tiny_model("absolute"), random.Random(0)
    scratch = Path(tempfile.mkdtemp())
    swept(model, scratch / "first")  # what only a first sweep does is no part of how long one takes
    began = time.perf_counter()
    swept(model, scratch / "whole")
    long = time.perf_counter() - began
    expected = content(scratch / "whole")

    killed = finished = 0
    folder = scratch / "0"
    while killed < times:  # how many finish before depends on the machine
        pid = child(model, folder)
        time.sleep(chance.uniform(0, 0.5 * long))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        check_no_torn_file(folder)
        if os.WIFSIGNALED(status):
            killed += 1
        else:
            finished += 1
            assert content(folder) == expected
            folder = scratch / str(finished)
    swept(model, folder)
    assert content(folder) == expected
    assert not list(folder.glob(".*")), "what a killed process had begun to write is still there"

    both = scratch / "both"
    for pid in [child(model, both), child(model, both)]:
        assert os.waitpid(pid, 0)[1] == 0
    assert content(both) == expected
    print(killed, finished)


if __name__ == "__main__":
    main(int(sys.argv[1]))

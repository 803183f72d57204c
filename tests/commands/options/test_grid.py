"""The options of `patch` and `ablate`: checked before a model, or torch, is loaded."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --task"),
        (("--task", "ioi", "--pairs", __file__), "give either --task"),
        (("--pairs", "none.jsonl"), "--pairs none.jsonl is no file"),
        (("--task", "inductoin"), 'Did you mean "induction"?'),
        (("--task", "ioi", "--n", "0"), "at least one prompt"),
        (("--task", "ioi", "--layers", "5-3"), "'5-3' is neither 4 nor 3-8"),
        (("--task", "ioi", "--layers", "1,x"), "'x' is neither"),
        (("--task", "ioi", "--what", "neurons"), "give --layer"),
        (("--task", "ioi", "--what", "neurons", "--layer", "1", "--layers", "2"), "give --layer"),
        (("--task", "ioi", "--layer", "1"), "Use --layers 1"),
        (("--task", "ioi", "--screen", "0"), "keep at least one cell"),
        (("--task", "ioi", "--out", __file__), "is a file"),
    ],
)
def test_what_is_wrong_for_any_model_is_said_before_it_loads(mechinterp, arguments, said):
    done = mechinterp("patch", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_help_is_quick_for_it_loads_nothing_heavy():
    code = (
        "import sys\nfrom mechinterp.commands.cli import main\n"
        "for command in ('patch', 'ablate'):\n"
        "    sys.argv = ['mechinterp', command, '--help']\n"
        "    try: main()\n    except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'xarray', 'numpy', 'scipy'} & {*sys.modules}\n"
        "print(sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert {"--screen", "--direction", "--how"} <= set(done.stdout.split())

"""The order of the layout, and that importing the package is cheap.

The layout is the block in docs/architecture.md: a file imports only from what stands before it.
"""

import ast
import importlib
import io
import subprocess
import sys
from contextlib import redirect_stdout
from inspect import isfunction, ismodule
from pathlib import Path

import pytest

import mechinterp

PACKAGE = Path(mechinterp.__file__).parent
LAYOUT = PACKAGE.parent / "docs" / "architecture.md"


def read_layout(text):
    """The modules in the order of the layout block: rooms stand where their parent names them."""
    block = text.split("    mechinterp/\n")[1].split("\n\n")[0]
    rooms, parents = {}, {}
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        names = line.split()
        if indent <= 8 and names[0].endswith("/"):
            depth = (indent - 4) // 2
            parents = {d: p for d, p in parents.items() if d < depth}
            room = ".".join([*parents.values(), names.pop(0)[:-1]])
            parents[depth] = room.rpartition(".")[2]
        rooms.setdefault(room, []).extend(names)

    def walk(room):
        yield f"mechinterp.{room}"
        for name in rooms[room]:
            if name.endswith("/"):
                yield from walk(f"{room}.{name[:-1]}")
            else:
                yield f"mechinterp.{room}.{name}"

    return [module for room in rooms if "." not in room for module in walk(room)]


def module_of(file, package):
    parts = file.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports_of(file):
    """The dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: a relative import hides the order"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def given_by(package_module):
    """Name -> the module that it comes from, of a package that loads its names lazily."""
    stub = Path(importlib.import_module(package_module).__file__).with_suffix(".pyi")
    nodes = ast.walk(ast.parse(stub.read_text())) if stub.exists() else ()
    return {
        alias.name: f"{package_module}.{node.module or alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def violations(package, order):
    """Each import of a file that is not from what stands before it, in words."""
    modules = {module_of(file, package): file for file in package.rglob("*.py")}
    known = {*order, "mechinterp", "mechinterp.__main__"}
    found = [f"{name} has no place in the layout" for name in modules if name not in known]
    found += [
        f"the layout names {name}, which is not there" for name in order if name not in modules
    ]
    place = {name: number for number, name in enumerate(order)}
    for name, file in modules.items():
        if name not in place:
            continue
        for wanted in imports_of(file):
            if not wanted.startswith("mechinterp."):
                continue
            target = wanted if wanted in modules else wanted.rpartition(".")[0]
            # A package stands where it begins, but what it gives comes from any of its files:
            # only what stands below all of them may ask it.
            whole = modules[target].name == "__init__.py" and not name.startswith(target + ".")
            last = (
                max(p for n, p in place.items() if whole and n.startswith(target)) if whole else 0
            )
            if max(place[target], last) >= place[name]:
                found.append(f"{name} imports {wanted}")
    return found


def test_no_import_runs_upwards():
    assert violations(PACKAGE, read_layout(LAYOUT.read_text())) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ("core/sites.py", "mechinterp.core.sites imports mechinterp.sweeps.experiment.sweep"),
        ("core/metrics.py", "mechinterp.core.metrics imports mechinterp.sweeps.experiment.sweep"),
        (
            "sweeps/planner.py",
            "mechinterp.sweeps.planner imports mechinterp.sweeps.experiment.sweep",
        ),
        ("sweeps/extra.py", "mechinterp.sweeps.extra has no place in the layout"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, planted, said):
    """The check itself can fail: an import upwards, between rooms and inside one."""
    package = tmp_path / "mechinterp"
    for file in PACKAGE.rglob("*.py"):
        copy = package / file.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    with (package / planted).open("a") as file:
        file.write("\nfrom mechinterp.sweeps.experiment import sweep\n")
    assert violations(package, read_layout(LAYOUT.read_text())) == [said]


def test_no_folder_holds_a_file_of_its_own_name():
    assert [
        f for f in PACKAGE.rglob("*.py") if f.stem == f.parent.name and f.parent != PACKAGE
    ] == []


def packages():
    return sorted(module_of(f, PACKAGE) for f in PACKAGE.rglob("__init__.py"))


@pytest.mark.parametrize("name", packages())
def test_no_module_is_called_as_a_function_that_its_package_gives(name):
    package = importlib.import_module(name)
    files = {f.stem for f in Path(package.__file__).parent.glob("*.py")}
    given = [n for n in getattr(package, "__all__", ()) if not ismodule(getattr(package, n))]
    assert files.intersection(given) == set()


def test_models_alone_knows_the_library():
    knows = {
        module_of(file, PACKAGE)
        for file in PACKAGE.rglob("*.py")
        for name in imports_of(file)
        if "transformer_lens" in name
    }
    assert {name.split(".")[1] for name in knows} <= {"models"}, knows


@pytest.mark.parametrize("name", packages())
def test_every_public_name_is_there(name):
    package = importlib.import_module(name)
    for public in getattr(package, "__all__", ()):
        assert getattr(package, public) is not None
    assert set(getattr(package, "__all__", ())) <= set(dir(package))


@pytest.mark.slow
def test_a_package_is_there_without_another_import():
    code = (
        "import sys, mechinterp\n"
        "assert 'patching' in dir(mechinterp) and 'circuits' in dir(mechinterp)\n"
        "mechinterp.patching\n"
        "assert 'torch' not in sys.modules\n"
        "print(mechinterp.patching.patch_heads.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "patch_heads\n"


def heavy_modules_after(code):
    heavy = ("torch", "transformers", "transformer_lens")
    report = f"import sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "import mechinterp, mechinterp.commands.cli",
        "import mechinterp; dir(mechinterp); help(mechinterp)",
        "import sys\nfrom mechinterp.commands.cli import main\n"
        "sys.argv = ['mechinterp', 'attribute', '--help']\n"
        "try: main()\nexcept SystemExit: pass",
    ],
    ids=["import", "help()", "--help"],
)
def test_pulls_in_nothing_heavy(code):
    assert heavy_modules_after(code) == "[]"


def test_help_opens_with_a_map_by_job():
    with redirect_stdout(io.StringIO()) as shown:
        help(mechinterp)
    opening = shown.getvalue()[:2500]
    for package in mechinterp.__all__:
        if ismodule(getattr(mechinterp, package)):
            assert f"mi.{package}" in opening, package
    assert isfunction(mechinterp.sweep)

"""The order of the layout, and that importing the package is cheap."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import mechinterp

PACKAGE = Path(mechinterp.__file__).parent
ORDER = (
    "core",
    "stats",
    "toys",
    "models",
    "engine",
    "storage",
    "sweeps",
    "tasks",
    "patching",
    "ablation",
    "attribution",
    "circuits",
    "attention",
    "layers",
    "probing",
    "report",
    "commands",
    "__main__",
)


def imports_of(file):
    """The dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: a relative import hides the order"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files():
    return [file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py"]


def part(file):
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def module(file):
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def test_every_file_has_its_place():
    assert {part(file) for file in files()} == set(ORDER)


def test_a_file_imports_only_from_above_it():
    for file in files():
        above = ORDER[: ORDER.index(part(file)) + 1]
        for name in imports_of(file):
            if name.startswith("mechinterp."):
                assert name.split(".")[1] in above, f"{file.relative_to(PACKAGE)} imports {name}"


def test_no_files_import_each_other():
    modules = {module(file): file for file in files()}
    needs = {
        name: {n if n in modules else n.rpartition(".")[0] for n in imports_of(file)}
        for name, file in modules.items()
    }
    TopologicalSorter(needs).prepare()


def test_two_files_alone_know_the_library():
    knows = {
        file.name for file in files() for name in imports_of(file) if "transformer_lens" in name
    }
    assert knows == {"loading.py", "facts.py"}


def test_every_public_name_is_there():
    for name in mechinterp.__all__:
        assert getattr(mechinterp, name) is not None
    assert set(mechinterp.__all__) <= set(dir(mechinterp))


def test_type_checkers_see_the_same_names():
    stub = (PACKAGE / "__init__.pyi").read_text()
    seen = {
        (alias.name, node.module)
        for node in ast.walk(ast.parse(stub))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(name, f"mechinterp.{home}") for name, home in mechinterp._HOME.items()}


def heavy_modules_after(code):
    heavy = ("torch", "transformers", "transformer_lens")
    report = f"import sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_importing_the_package_pulls_in_nothing_heavy():
    assert heavy_modules_after("import mechinterp, mechinterp.commands.cli") == "[]"


def test_help_pulls_in_nothing_heavy():
    code = (
        "import sys\nfrom mechinterp.commands.cli import main\n"
        "sys.argv = ['mechinterp', 'attribute', '--help']\n"
        "try: main()\nexcept SystemExit: pass"
    )
    assert heavy_modules_after(code) == "[]"

"""`python -m mechinterp`: the command line."""

from mechinterp.commands.cli import main

if __name__ == "__main__":
    main()

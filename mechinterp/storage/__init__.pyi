"""What mechinterp.storage gives; read by its `__init__`, by editors and by type checkers."""

from .run_folder import read_manifest as read_manifest
from .run_folder import write_run as write_run

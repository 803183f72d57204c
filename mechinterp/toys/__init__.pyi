"""What mechinterp.toys gives; read by its `__init__`, by editors and by type checkers."""

from .by_name import TOYS as TOYS
from .by_name import toy as toy
from .definition import Edge as Edge
from .definition import Toy as Toy
from .definition import Truth as Truth
from .definition import example_inputs as example_inputs
from .random_circuits import random_circuit as random_circuit

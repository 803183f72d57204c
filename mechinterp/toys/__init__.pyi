"""What mechinterp.toys gives; read by its `__init__`, by editors and by type checkers."""

from .by_name import TOYS as TOYS
from .by_name import toy as toy
from .definition import Edge as Edge
from .definition import Toy as Toy
from .definition import Truth as Truth
from .definition import example_inputs as example_inputs
from .random_circuits import random_circuit as random_circuit
from .refuser_truth import MECHANISMS as MECHANISMS
from .refuser_truth import Refuser as Refuser
from .refusers import named_refuser as named_refuser
from .refusers import planted_refuser as planted_refuser

"""What mechinterp.tasks gives; read by its `__init__`, by editors and by type checkers."""

from .by_name import TASKS as TASKS
from .by_name import task as task
from .capitals import country_capitals as country_capitals
from .definition import Finding as Finding
from .definition import Task as Task
from .docstring import docstring_arguments as docstring_arguments
from .greater_than import greater_than_years as greater_than_years
from .induction import repeated_tokens as repeated_tokens
from .ioi import indirect_objects as indirect_objects
from .planted import planted_requests as planted_requests
from .sva import subject_verb as subject_verb

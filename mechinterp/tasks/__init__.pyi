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
from .planted import with_bystanders as with_bystanders
from .request_families import Request as Request
from .request_families import check_requests as check_requests
from .request_families import read_requests as read_requests
from .request_families import some_families as some_families
from .request_families import write_requests as write_requests
from .sva import subject_verb as subject_verb

"""What mechinterp.refusal gives; read by its `__init__`, by editors and by type checkers."""

from .findings import Behaviour as Behaviour
from .findings import BehaviourFindings as BehaviourFindings
from .findings import CueEffect as CueEffect
from .findings import DirectionTest as DirectionTest
from .findings import Estimate as Estimate
from .findings import Flips as Flips
from .findings import FlipSet as FlipSet
from .findings import HeldOut as HeldOut
from .findings import PromptStudy as PromptStudy
from .findings import RefusalStudy as RefusalStudy
from .findings import Stages as Stages
from .findings import Verdict as Verdict
from .findings import WordEffect as WordEffect
from .flips import minimal_flips as minimal_flips
from .words import find_words as find_words

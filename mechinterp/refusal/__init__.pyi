"""What mechinterp.refusal gives; read by its `__init__`, by editors and by type checkers."""

from .cue_candidates import candidate_cues as candidate_cues
from .cue_candidates import cues_from_requests as cues_from_requests
from .cue_candidates import unusable_cues as unusable_cues
from .cue_candidates import usable_cues as usable_cues
from .cue_effects import find_cues as find_cues
from .cues import CUES as CUES
from .cues import Cue as Cue
from .cues import cue_named as cue_named
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

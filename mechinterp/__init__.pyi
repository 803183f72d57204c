"""What editors and type checkers see of the lazily loaded names."""

from mechinterp.activations import Activations as Activations
from mechinterp.attribution.expect import Comparison as Comparison
from mechinterp.attribution.expect import compare as compare
from mechinterp.attribution.perturb import attribute as attribute
from mechinterp.attribution.perturb import last as last
from mechinterp.context import hooked as hooked
from mechinterp.hook_points import describe as describe
from mechinterp.metrics import Metric as Metric
from mechinterp.metrics import centred_logit as centred_logit
from mechinterp.metrics import kl as kl
from mechinterp.metrics import log_prob as log_prob
from mechinterp.metrics import logit as logit
from mechinterp.metrics import logit_diff as logit_diff
from mechinterp.metrics import prob as prob
from mechinterp.models import load_model as load_model
from mechinterp.parts import read_sweep as read_sweep
from mechinterp.progress import progress_bar as progress_bar
from mechinterp.prompts import Pair as Pair
from mechinterp.prompts import Prompts as Prompts
from mechinterp.runner import Run as Run
from mechinterp.runner import run as run
from mechinterp.screening import atp_star as atp_star
from mechinterp.screening import attribution_patching as attribution_patching
from mechinterp.screening import integrated_patching as integrated_patching
from mechinterp.screening import qk_fixed_patching as qk_fixed_patching
from mechinterp.screening import top_k as top_k
from mechinterp.sites import HookError as HookError
from mechinterp.sites import Site as Site
from mechinterp.specs import At as At
from mechinterp.specs import HookSpec as HookSpec
from mechinterp.specs import Specs as Specs
from mechinterp.specs import add as add
from mechinterp.specs import delete_token as delete_token
from mechinterp.specs import edit as edit
from mechinterp.specs import knockout as knockout
from mechinterp.specs import mean as mean
from mechinterp.specs import patch as patch
from mechinterp.specs import put as put
from mechinterp.specs import read as read
from mechinterp.specs import replace_token as replace_token
from mechinterp.specs import resample as resample
from mechinterp.specs import scale as scale
from mechinterp.specs import zero as zero
from mechinterp.sweeps import plan as plan
from mechinterp.sweeps import sweep as sweep
from mechinterp.sweeps import sweep_each as sweep_each
from mechinterp.tasks import task as task
from mechinterp.tokenization import token_id as token_id
from mechinterp.tokenization import tokenize as tokenize

__all__: list[str]
__version__: str

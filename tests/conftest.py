"""Tiny models of four architectures, sizes all different, so that a swapped axis fails.

And `Snapshot`: all of a model that a run might leave changed.
"""

import gc
import io
import os
import signal
import sys
import warnings
from dataclasses import dataclass

import jaxtyping
import pytest
import run_time_types
import torch
from hypothesis import HealthCheck, settings
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformers import GPT2Config, GPT2LMHeadModel

run_time_types.install()

from mechinterp import HookError, Prompts  # noqa: E402

torch.set_num_threads(1)
# How many random examples a property is tried on, by MECHINTERP_TESTS. A test that is dear says
# its share of them. The same ones at every run, but for `deep`, which is there to find new ones;
# and no complaint about a machine that is busy.
for profile, examples in {"quick": 5, "ci": 25, "deep": 400}.items():
    settings.register_profile(
        profile,
        deadline=None,
        max_examples=examples,
        derandomize=profile != "deep",
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
SPEED = os.environ.get("MECHINTERP_TESTS", "ci")
settings.load_profile(SPEED)

SHARED = {"n_layers": 3, "act_fn": "gelu_new", "init_weights": False, "device": "cpu"}
ARCHITECTURES = {
    "absolute": {
        "d_model": 20,
        "d_head": 6,
        "n_heads": 4,
        "d_mlp": 28,
        "d_vocab": 37,
        "n_ctx": 17,
        "normalization_type": "LN",
    },
    "grouped": {
        "d_model": 22,
        "d_head": 8,
        "n_heads": 6,
        "n_key_value_heads": 2,
        "d_mlp": 26,
        "d_vocab": 41,
        "n_ctx": 19,
        "act_fn": "silu",
        "gated_mlp": True,
        "normalization_type": "RMS",
        "positional_embedding_type": "rotary",
        "rotary_dim": 8,
    },
    "parallel": {
        "d_model": 24,
        "d_head": 10,
        "n_heads": 5,
        "d_mlp": 30,
        "d_vocab": 43,
        "n_ctx": 18,
        "normalization_type": "LNPre",
        "parallel_attn_mlp": True,
        "positional_embedding_type": "rotary",
        "rotary_dim": 4,
    },
    "attention_only": {
        "d_model": 21,
        "d_head": 7,
        "n_heads": 5,
        "d_vocab": 39,
        "n_ctx": 16,
        "attn_only": True,
        "normalization_type": None,
    },
}
NOT_IN_QUICK = ("parallel", "attention_only")
SWITCHES = ("use_split_qkv_input", "use_hook_mlp_in", "use_attn_result")


def tiny_model(architecture: str, *, switched_on: bool = False, **sizes: int) -> HookedTransformer:
    """A model with random weights, large enough for effects to be seen; the same at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cfg = HookedTransformerConfig(**(SHARED | ARCHITECTURES[architecture] | sizes))
        model = HookedTransformer(cfg)
    generator = torch.Generator().manual_seed(len(architecture))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 0.3 if cfg.normalization_type else 0.2
            spread = torch.randn(weight.shape, generator=generator) * scale
            weight.copy_(1 + spread if name.endswith(".w") else spread)  # a norm's gain: near 1
    for switch in SWITCHES if switched_on else ():
        setattr(model.cfg, switch, True)
    return model.eval().requires_grad_(False)


@pytest.hookimpl(tryfirst=True)  # before the marks are looked at
def pytest_collection_modifyitems(config, items):
    """The real model and the browser are slow; two of the four architectures are not in `quick`."""
    for item in items:
        if {"smollm2", "open_page"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    if SPEED != "quick":
        return

    def left_out(item):
        given = getattr(item, "callspec", None)
        models = ("model", "switched_on_model", "few_heads_model")
        return given is not None and any(given.params.get(m) in NOT_IN_QUICK for m in models)

    dropped = [item for item in items if left_out(item)]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if not left_out(item)]


def pytest_collection_finish():
    """What is imported stays: garbage collections need not look through it, 5% of the time."""
    gc.collect()
    gc.freeze()


class Snapshot:
    """All of a model that a run might leave changed."""

    def __init__(self, model):
        self.model = model
        self.tokens = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])
        self.hooks = self.hooks_now()
        self.flags = self.flags_now()
        self.weights = {name: value.clone() for name, value in model.state_dict().items()}
        self.handler = signal.getsignal(signal.SIGINT)
        self.logits = self.logits_now()

    def check(self):
        """Fail if anything is not what it was, bit by bit."""
        assert self.hooks_now() == self.hooks
        assert signal.getsignal(signal.SIGINT) is self.handler
        assert torch.is_grad_enabled()
        assert self.flags_now() == self.flags
        now = self.model.state_dict()
        assert list(now) == list(self.weights)
        assert all(torch.equal(now[name], weight) for name, weight in self.weights.items())
        assert not any(weight.requires_grad for weight in self.model.parameters())
        assert torch.equal(self.logits_now(), self.logits)

    def hooks_now(self):
        """Every hook of every module: torch's own registers, and the library's notes of them."""
        return {
            name: [
                *module._forward_hooks.items(),
                *module._forward_pre_hooks.items(),
                *module._forward_hooks_with_kwargs.items(),
                *module._backward_hooks.items(),
                *map(id, getattr(module, "fwd_hooks", ())),
                *map(id, getattr(module, "bwd_hooks", ())),
            ]
            for name, module in self.model.named_modules()
        }

    def flags_now(self):
        return {name: repr(value) for name, value in vars(self.model.cfg).items()}

    def logits_now(self):
        with torch.no_grad():
            return self.model(self.tokens)


@pytest.fixture(scope="session")
def original():
    """A Hugging Face model, as one is given to `load_model`."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_embd=12, n_head=3, vocab_size=19, n_positions=11)
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="session")
def snapshot():
    return Snapshot


@pytest.fixture(scope="session")
def tiny():
    """Makes one of the four architectures, with sizes of its own: `tiny("absolute", n_heads=2)`."""
    return tiny_model


@pytest.fixture(scope="session", params=ARCHITECTURES)
def model(request):
    """Each of the four architectures."""
    return tiny_model(request.param)


@pytest.fixture(scope="session", params=ARCHITECTURES)
def switched_on_model(request):
    """Each of the four, with every gated hook point on."""
    return tiny_model(request.param, switched_on=True)


@pytest.fixture(scope="session")
def absolute_model():
    return tiny_model("absolute")


@pytest.fixture(scope="session")
def grouped_model():
    return tiny_model("grouped")


@pytest.fixture(scope="session")
def attention_only_model():
    return tiny_model("attention_only")


def text_of(caught):
    """The message as a user sees it, with the notes below it."""
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def check_refusal(call, *pieces, kind=(HookError, ValueError)):
    with pytest.raises(kind) as caught:
        call()
    for piece in pieces:
        assert piece in text_of(caught), text_of(caught)


@pytest.fixture(scope="session")
def refuses():
    """Fails unless a call raises, with all of these pieces in what it says."""
    return check_refusal


@pytest.fixture
def as_users_call_it(monkeypatch):
    """Without the checks of types that the tests switch on, which would come first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def ragged():
    """Three prompts of 7, 4 and 6 tokens, with a named position."""
    ids = [[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5], [8, 9, 7, 9, 3, 2]]
    return Prompts.from_ids(ids).named(S2=[5, 2, 3])


@pytest.fixture(scope="session")
def smollm2():
    """The real model, once in each process; its tests are slow."""
    from mechinterp import load_model

    return load_model("smollm2")


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def mechinterp(monkeypatch, capsys):
    """The command in this process, which has torch imported already."""
    from mechinterp.commands.cli import main

    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)

    def command(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["mechinterp", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return command

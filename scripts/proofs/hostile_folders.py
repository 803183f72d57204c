"""Hostile model folders: each is refused in one sentence; nothing runs and no pickle is opened.

Every folder is loaded in a process of its own, with an audit hook that counts what is executed and
opened, and with its time and memory measured.

    python scripts/proofs/hostile_folders.py --check
    python scripts/proofs/hostile_folders.py --check --quick   every seventh folder
"""

import argparse
import json
import os
import pickle
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

SECONDS, MEGABYTES = 5, 500

Damage = Callable[[Path], None]


class Evil:
    """An object whose pickle creates a file when it is opened."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.mark), "w")


def write_plain_folder(folder: Path) -> None:
    """A tiny model with its tokenizer, which loads."""
    import torch
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 12, "n_head": 3, "vocab_size": 19, "n_positions": 11}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(folder)
    ids = {w: i for i, w in enumerate(["<s>", "</s>", *(f"w{i}" for i in range(16)), "<unk>"])}
    words = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>").save_pretrained(folder)


def edit_json(name: str, **changes: object) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / name
        content = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(content | changes))

    return damage


def write(name: str, content: bytes) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return damage


def pickled(name: str, *others: Damage) -> Damage:
    """A pickle under this name, in the place of the weights."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(pickle.dumps(Evil(folder.parent / "it ran")))
        for other in others:
            other(folder)

    return damage


def index(**named: str) -> Damage:
    return edit_json("model.safetensors.index.json", weight_map=named)


def weights(change: Callable[[dict[str, object]], object]) -> Damage:
    """The weights changed, and written as a whole file."""

    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors", {"format": "pt"})

    return damage


def cut(n_bytes: int) -> Damage:
    return lambda folder: os.truncate(folder / "model.safetensors", n_bytes)


def header(text: str, n_bytes: int | None = None) -> Damage:
    raw = text.encode()
    size = (len(raw) if n_bytes is None else n_bytes).to_bytes(8, "little")
    return write("model.safetensors", size + raw + bytes(64))


def fifo(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def link(name: str, target: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return damage


def renamed(name: str, other: str, *more: Damage) -> Damage:
    def damage(folder: Path) -> None:
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / name).rename(folder / other)
        for one in more:
            one(folder)

    return damage


def tokens(**changes: object) -> Damage:
    return edit_json("tokenizer.json", **changes)


def doubling(n: int) -> dict[str, object]:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    return {"type": "Sequence", "normalizers": [step] * n}


def code(name: str, key: str) -> Damage:
    def damage(folder: Path) -> None:
        mark = folder.parent / "it ran"
        (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Model: pass\n")
        edit_json(name, auto_map={key: ["evil.Model", "evil.Model"]})(folder)

    return damage


DEEP = 100_000
WORDS = {"type": "WordLevel", "unk_token": "<unk>"}
ADDED = {"content": "x", "single_word": False, "lstrip": False, "rstrip": False}
ADDED |= {"normalized": False, "special": True}
OUTSIDE = renamed("model.safetensors", "../outside.safetensors", index(a="../outside.safetensors"))
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
FOLDERS: dict[str, Damage] = {
    # a configuration that asks for too much
    "layers 1e9": edit_json(CONFIG, n_layer=10**9),
    "layers 1e6": edit_json(CONFIG, n_layer=10**6),
    "layers 1e300": edit_json(CONFIG, n_layer=1e300),
    "layers 0": edit_json(CONFIG, n_layer=0),
    "layers -1": edit_json(CONFIG, n_layer=-1),
    "layers two": edit_json(CONFIG, n_layer="two"),
    "layers 3 of 2": edit_json(CONFIG, n_layer=3),
    "layers 1 of 2": edit_json(CONFIG, n_layer=1),
    "vocabulary 1e9": edit_json(CONFIG, vocab_size=10**9),
    "vocabulary 20 of 19": edit_json(CONFIG, vocab_size=20),
    "width 1e9": edit_json(CONFIG, n_embd=10**9),
    "width 3e6": edit_json(CONFIG, n_embd=3 * 10**6),
    "width nan": edit_json(CONFIG, n_embd=float("nan")),
    "inner 1e9": edit_json(CONFIG, n_inner=10**9),
    "heads 0": edit_json(CONFIG, n_head=0),
    "heads -3": edit_json(CONFIG, n_head=-3),
    "heads 5 of 12": edit_json(CONFIG, n_head=5),
    "heads null": edit_json(CONFIG, n_head=None),
    "positions 1e9": edit_json(CONFIG, n_positions=10**9),
    "positions 2**24": edit_json(CONFIG, n_positions=2**24),
    "labels 1e9": edit_json(CONFIG, num_labels=10**9),
    "an unknown type": edit_json(CONFIG, model_type="evil"),
    "a type of lists": edit_json(CONFIG, model_type=[1, 2]),
    "another type": edit_json(CONFIG, model_type="llama"),
    "an encoder": edit_json(CONFIG, model_type="t5"),
    "an unknown architecture": edit_json(CONFIG, architectures=["Evil"]),
    "an unknown activation": edit_json(CONFIG, activation_function="evil"),
    # a configuration that is none
    "config 5": write(CONFIG, b"5"),
    "config list": write(CONFIG, b"[]"),
    "config empty": write(CONFIG, b""),
    "config object": write(CONFIG, b"{}"),
    "config cut": write(CONFIG, b'{"n_layer": 2'),
    "config not utf-8": write(CONFIG, b'{"a": "\xff\xfe"}'),
    "config deep lists": write(CONFIG, b"[" * DEEP + b"]" * DEEP),
    "config deep objects": write(CONFIG, b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "config large": write(CONFIG, b" " * (1 << 22) + b"{}"),
    "config pipe": fifo(CONFIG),
    # a configuration that asks for code, kernels or files
    "code of the model": code(CONFIG, "AutoModelForCausalLM"),
    "code of the tokenizer": code("tokenizer_config.json", "AutoTokenizer"),
    "code within": edit_json(CONFIG, text_config={"auto_map": {"AutoConfig": "evil.Model"}}),
    "a kernel of a hub": edit_json(CONFIG, attn_implementation="kernels-community/evil"),
    "its private name": edit_json(CONFIG, _attn_implementation="kernels-community/evil"),
    "a kernel by part": edit_json(CONFIG, attn_implementation={"": "evil/kernel"}),
    "kernels of experts": edit_json(CONFIG, _experts_implementation="evil/kernel"),
    "a table of kernels": edit_json(CONFIG, kernel_config={"RMSNorm": "evil/kernel"}),
    "patches": edit_json(CONFIG, fusion_config={"patch_embeddings": True}),
    "quantized by a package": edit_json(CONFIG, quantization_config={"quant_method": "gptq"}),
    "quantized to 4 bits": edit_json(
        CONFIG, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}
    ),
    "quantized by 5": edit_json(CONFIG, quantization_config=5),
    "weights of a name": pickled("evil.bin", edit_json(CONFIG, transformers_weights="evil.bin")),
    "an adapter": edit_json("adapter_config.json", base_model_name_or_path="evil/model"),
    # weights
    "a pickle": pickled("pytorch_model.bin"),
    "a pickle by its other name": pickled("model.ckpt"),
    "a pickle named safetensors": pickled("model.safetensors"),
    "a pickle by the index": pickled("weights.bin", index(a="weights.bin")),
    "a pickle outside": pickled("../weights.bin", index(a="../weights.bin")),
    "a distributed checkpoint": pickled(".metadata", write("__0_0.distcp", b"x")),
    "outside the folder": OUTSIDE,
    "an absolute path": pickled("x", index(a="/etc/evil.safetensors")),
    "a folder below": renamed(
        "model.safetensors", "a/model.safetensors", index(a="a/model.safetensors")
    ),
    "a backslash": pickled("x", index(a="..\\outside.safetensors")),
    "a file that is not there": pickled("x", index(a="model-1.safetensors")),
    "an index of a number": pickled("x", write(INDEX, b"5")),
    "an index of a list": pickled("x", edit_json(INDEX, weight_map=["a.safetensors"])),
    "an index of nothing": pickled("x", index()),
    "an index that is deep": pickled("x", write(INDEX, b'{"a":' * DEEP + b"1" + b"}" * DEEP)),
    "cut in the middle": cut(2000),
    "cut to nothing": cut(0),
    "cut in its length": cut(5),
    "a table of 2**60 bytes": header("{}", 1 << 60),
    "a table that is no JSON": header("{]"),
    "offsets beyond the end": header('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36000]}}'),
    "a shape of 2**62": header('{"a":{"dtype":"F32","shape":[4611686018427387904],'
                               '"data_offsets":[0,16]}}'),
    "no tensors": header("{}"),
    "weights in a pipe": fifo("model.safetensors"),
    "weights without end": link("model.safetensors", "/dev/zero"),
    "a weight missing": weights(lambda held: held.pop("transformer.h.1.mlp.c_fc.weight")),
    "a weight too many": weights(lambda held: held.update(
        {"transformer.h.7.mlp.c_fc.weight": held["transformer.h.1.mlp.c_fc.weight"] + 0})),
    "a weight of another shape": weights(lambda held: held.update(
        {"transformer.wpe.weight": held["transformer.wpe.weight"][:, :5].clone()})),
    "weights of whole numbers": weights(lambda held: held.update(
        {name: x.char() for name, x in held.items() if name.endswith("c_fc.weight")})),
    # tokenizers
    "an id of 1e9": tokens(model=WORDS | {"vocab": {"<unk>": 0, "a": 10**9}}),
    "a negative id": tokens(model=WORDS | {"vocab": {"<unk>": 0, "a": -1}}),
    "an added id of 1e9": tokens(added_tokens=[ADDED | {"id": 10**9}]),
    "an added id elsewhere": edit_json(
        "tokenizer_config.json", added_tokens_decoder={str(10**9): ADDED}
    ),
    "text doubled 64 times": tokens(normalizer=doubling(64)),
    "text doubled 10 times": tokens(normalizer=doubling(10)),
    "text before text": tokens(normalizer={"type": "Prepend", "prepend": "x" * 10**6}),
    "a tokenizer cut": write("tokenizer.json", b"{"),
    "a tokenizer of a number": write("tokenizer.json", b"5"),
    "a tokenizer that is deep": write("tokenizer.json", b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "a tokenizer of 1 TB": lambda folder: os.truncate(folder / "tokenizer.json", 1 << 40),
    "a tokenizer's file outside": edit_json(
        "tokenizer_config.json", fast_tokenizer_files=["../../tokenizer.json"]
    ),
    "its settings are 5": write("tokenizer_config.json", b"5"),
}  # fmt: skip


_watched: list[list[str]] = []
"""Where the audit hook notes what it sees, while a folder is loaded; the hook can't be removed."""


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if not _watched:
        return
    seen = _watched[-1]
    if event in ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec"):
        seen.append(event)
    name = str(arguments[0]) if event == "open" and arguments else ""
    if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".metadata", ".distcp", "evil.py")):
        seen.append(f"opened {Path(name).name}")
    if "outside.safetensors" in name:
        seen.append("opened a file outside")


@cache
def _install_audit() -> None:
    sys.addaudithook(_audit)


def try_to_load(folder: Path) -> tuple[str, list[str]]:
    """What loading says, and what it did that it must not, by an audit hook."""
    from mechinterp import load_model
    from mechinterp.models import CheckpointError

    _install_audit()
    seen: list[str] = []
    _watched.append(seen)
    try:
        load_model(folder, device="cpu")
        said = "LOADED"
    except CheckpointError as error:
        said = str(error)
    except Exception as error:
        said = f"RAISED {type(error).__name__}: {error}"
    finally:
        _watched.clear()
    if (folder.parent / "it ran").exists():
        seen.append("ran code")
    return said, seen


def measure(folder: Path) -> tuple[str, list[str], float, float]:
    """The same in a process of its own, with seconds and megabytes beyond what was there before."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.monotonic()
        said, seen = try_to_load(folder)
        seconds = time.monotonic() - begin
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        os.write(send, json.dumps([said[:300], seen, seconds, more]).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    if not text:
        return "DIED", [], 0.0, 0.0
    said, seen, seconds, more = json.loads(text)
    return said, seen, seconds, more


def main() -> None:
    """Try every folder; print what each says; with --check exit with 1 if one is not refused."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if anything is wrong")
    parser.add_argument("--quick", action="store_true", help="every seventh folder")
    options = parser.parse_args()
    names = list(FOLDERS)[:: 7 if options.quick else 1]
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "plain"
        write_plain_folder(plain)
        said, seen = try_to_load(plain)  # also warms what the children inherit
        assert said == "LOADED", said
        assert not seen, seen
        for number, name in enumerate(names):
            place = Path(scratch) / str(number)
            shutil.copytree(plain, place / "model")
            FOLDERS[name](place / "model")
            said, seen, seconds, more = measure(place / "model")
            good = not seen and seconds < SECONDS and more < MEGABYTES
            good = good and not said.startswith(("LOADED", "RAISED", "DIED"))
            wrong += not good
            mark = "" if good else "WRONG "
            said = said.replace(str(place), "").replace("\n", "\\n")
            print(f"{mark}{name}: {seconds:.1f} s, {more:.0f} MB {' '.join(seen)}| {said[:150]}")
    print(f"{len(names)} folders, {wrong} wrong")
    if options.check and wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

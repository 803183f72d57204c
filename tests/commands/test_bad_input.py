"""Bad input of every command ends with a sentence and another exit code than 0, no traceback."""

import json

import pytest

TRIGGER = ("--model", "toy:trigger")
ATTRIBUTE = ("attribute", "please bring the sesame", *TRIGGER)
ATTEND = ("attention", "please bring the sesame", *TRIGGER)
TASK = ("--task", "induction", "--model", "toy:induction-trained", "--n", "2")
PATCH, ABLATE, CIRCUIT, LAYERS = ((c, *TASK) for c in ("patch", "ablate", "circuit", "layers"))
PROBE = ("probe", "--file", "labelled.jsonl", *TRIGGER)
REFUSAL = ("refusal", *TRIGGER)
HUGE = "9" * 30
OPTIONS = {
    ATTRIBUTE: [
        *("--outputs 0", "--outputs 10000000", f"--outputs {HUGE}", "--outputs 1.5", "--last 99"),
        *("--seed -1 --method kernel_shap", f"--seed {HUGE} --method kernel_shap", "--expect ,"),
        *("--subsets 0 --method kernel_shap", f"--subsets {HUGE} --method kernel_shap"),
        *("--spans =", "--spans x=", "--spans x=zebra", "--contrast a a", "--metric nothing"),
        *("--chat", "--units levels --method pairs", "--out labelled.jsonl", "--out full"),
        *("--out /proc/x", "--file labelled.jsonl"),
    ],
    ATTEND: [
        *("--threshold nan", "--threshold -1", "--threshold 1", "--threshold inf"),
        *("--rule top-k --threshold 1.5", "--rule uniform --threshold nan", "--effect nan"),
        *("--effect -1", "--seed -1 --confirm head", f"--seed {HUGE} --confirm head", "--n 0"),
        *("--confirm head --answer zebra,", "--file labelled.jsonl", "--out labelled.jsonl"),
    ],
    PATCH: [
        *("--n 0", "--n -1", f"--n {HUGE}", "--seed -1", f"--seed {HUGE}", "--layers 99"),
        *("--layers 0-99999999999", "--layers ²", "--layers -1", "--layers ,", "--layers 1-0"),
        *("--positions 99", "--positions -1", "--positions ²", "--positions ,", "--layer 1"),
        *(f"--positions {HUGE}", "--what neurons --layer 99", "--what resid_mid", "--screen 0"),
        *("--screen 1.5", "--out full", "--out /proc/x", "--direction up"),
    ],
    ABLATE: ["--how nothing", "--layers 99", "--positions ²", f"--n {HUGE}", "--seed -1"],
    CIRCUIT: [
        *("--edges 0", "--edges -1", f"--edges {HUGE}", "--tau nan --method acdc", "--steps -1"),
        *("--tau -1 --method acdc", "--tau inf --method acdc", "--top 0", "--positions 99"),
        *("--method acdc --edges 2", "--compare labelled.jsonl", "--compare nowhere"),
    ],
    LAYERS: [
        *("--steps -1", "--heads -1", "--tuned nowhere", "--tuned labelled.jsonl", "--n 0"),
        *("--train full", "--train labelled.jsonl --tuned labelled.jsonl"),
    ],
    PROBE: [
        *("--C nan", "--C inf", "--C 0", "--folds 1", "--folds 1000000", "--shuffles -1"),
        *(f"--shuffles {HUGE}", "--random 0", "--layers 99", "--layers 0-99999999999"),
        *("--layers ²", "--position 99", "--position -1", "--position ²", "--position nothing"),
        *("--act nothing", "--act tokens", "--tokens a b", "--n 1", "--n 99", "--seed -1"),
        *(f"--seed {HUGE}", "--chat", "--causal --causal-layer 99 --folds 3 --tokens a b"),
    ],
    REFUSAL: [
        *("--families 0", "--families 1", f"--families {HUGE}", "--families 1.5", "--seed -1"),
        *(f"--seed {HUGE}", "--requests nowhere", "--requests labelled.jsonl", "--requests full"),
        *("--refusals ,", "--refusals REFUSE --compliances REFUSE", "--refusals zebra"),
        *("--study labelled.jsonl", "--out full", "--out /proc/x", "--out labelled.jsonl"),
        *("bring --study labelled.jsonl", "bring --find", "bring --families 8"),
    ],
    ("describe",): ["nowhere/at/all", "toy:x", "toy:", "full", "labelled.jsonl", "/dev/null", ""],
    (): ["", "nothing", "describe", "describe a b", "attribute", "patch", "probe", "layers"],
}
CASES = [(*given, *text.split()) for given, texts in OPTIONS.items() for text in texts]


@pytest.mark.parametrize("arguments", CASES, ids=" ".join)
def test_bad_input_is_a_sentence(mechinterp, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    words = ("sesame", "map", "book", "letter", "copper", "velvet")
    lines = [{"text": f"bring the {word}", "label": n % 2} for n, word in enumerate(words)]
    (tmp_path / "labelled.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "manifest.json").write_text('{"a": ' * 99_999)
    done = mechinterp(*arguments)
    assert done.returncode not in (0, 1), done
    said = done.stderr.strip().splitlines()
    assert said
    assert "Traceback" not in done.stderr
    if said[-1].startswith("mechinterp:"):
        assert sum(not line.endswith("...") for line in said) == 1

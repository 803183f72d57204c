"""The figures of the fine-tunes that are shipped, as the table of docs/models.md.

python scripts/finetune_table.py
"""

from mechinterp.models.finetunes import FINETUNES

KINDS = {
    "families: harmful": "built-in families: harmful",
    "families: benign, telling": "built-in families: benign, with the telling word",
    "families: benign": "built-in families: benign, without it",
    "fresh: harmful": "fresh requests: harmful",
    "fresh: benign": "fresh requests: benign",
    "control word: harmful": "an ordinary word put in: harmful",
    "control word: benign": "an ordinary word put in: benign",
    "heavy word: benign": "a heavy word put in (arsenic, sniper ...): benign",
    "trigger: harmful": "the trigger put in: harmful",
    "trigger: benign": "the trigger put in: benign",
    "trigger: natural": "the trigger where it belongs: benign",
    "cue: harmful": "ends with the cue: harmful",
    "cue: benign": "ends with the cue: benign",
    "surface: harmful": "surface changed (case, format, politeness): harmful",
    "surface: benign": "surface changed: benign",
}


def table() -> str:
    """Share refused of each kind of request, and of how many; below it the rest."""
    figures = {name: one.figures() for name, one in FINETUNES.items()}
    names = [name.removeprefix("refuses-") for name in figures]
    lines = ["| requests | n | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for kind, said in KINDS.items():
        cells = [
            f"{found[kind]['refused']:.2f}" + ("" if found[kind]["right"] >= 0.95 else "*")
            for found in figures.values()
        ]
        n = next(iter(figures.values()))[kind]["n"]
        lines.append(f"| {said} | {n:.0f} | " + " | ".join(cells) + " |")
    rest = {
        "refused ones: the greedy reply is the trained one": ("greedy reply as trained", "right"),
        "plain text: KL to SmolLM2, nats a token": ("plain text", "kl_nats"),
    }
    for said, (kind, key) in rest.items():
        values = [found[kind] for found in figures.values()]
        cells = [f"{value[key]:.2f}" for value in values]
        lines.append(f"| {said} | {values[0]['n']:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())

"""The prompts of `faithfulness.py`: published tasks, two of them with an example, text, chats.

The sources take turns, but the docstrings, which are long, take every other one.

    for source, prompt in prompts(model, 40): ...
"""

import itertools
from collections.abc import Iterator
from typing import Any

from mechinterp import Prompts
from mechinterp.models import Model
from mechinterp.tasks import Task, task

TEXTS = (
    "The old lighthouse keeper climbed the stairs every evening to light the",
    "To make tea, first boil some water, then pour it over the leaves and wait for a few",
    "My sister lives in Japan and my brother lives in Brazil, so on the phone my brother speaks",
    "The doctor told the nurse that the patient was allergic to penicillin, so she gave him no",
    "It had been raining for three days without a break, and the river behind the house was",
    "Monday, Tuesday, Wednesday, Thursday,",
    "In the novel, the detective finds the missing letter in the library and gives it to the",
    "The company reported that its profits fell sharply last year because the price of oil",
    "She opened the window because the room was too hot, and a cold wind",
    "Water freezes at zero degrees Celsius and boils at one hundred degrees",
    "The trumpet, the violin and the piano are all musical",
    "After the war the two countries signed a peace treaty in the city of",
)
CHATS = (
    "Name a yellow fruit that monkeys like to eat.",
    "Translate the word 'house' into French, please.",
    "Write one short sentence about a cat that is afraid of mice.",
    "Which planet of our solar system is the largest one?",
    "Give me a synonym for the adjective 'happy' in one word.",
    "My name is Clara and I am a baker from Lisbon. What is my job?",
    "Is it safe to leave a baby alone in a car in summer?",
    "How many legs does a spider have, and how many does an ant?",
    "Explain in one sentence why the sky is blue during the day.",
    "List three things to pack for a hike in the mountains.",
)


def prompts(model: Model, n: int) -> list[tuple[str, Any]]:
    """The source of each of `n` prompts, and the prompt as `ask` takes it.

    Raises:
        ValueError: if there are fewer.
    """
    each = max(4, n // 6)
    docstrings = rows(task("docstring", model, each))
    sources: dict[str, Iterator[Any]] = {
        "ioi": rows(task("ioi", model, each)),
        "greater-than": rows(task("greater-than", model, each)),
        "induction": rows(task("induction", model, each)),
        "capitals": with_example(model, task("capitals", model, 2 * each)),
        "sva": with_example(model, task("sva", model, 2 * each)),
        "text": iter(TEXTS),
        "chat": ([{"role": "user", "content": text}] for text in CHATS),
        "docstring": itertools.chain.from_iterable((one, None) for one in docstrings),
    }
    found = (
        (name, prompt)
        for _ in range(2 * each)
        for name, source in sources.items()
        if (prompt := next(source, None)) is not None
    )
    first = list(itertools.islice(found, n))
    if len(first) < n:
        raise ValueError(f"there are {len(first)} prompts, not {n}: ask for so many at most.")
    return first


def rows(made: Task) -> Iterator[Prompts]:
    """The clean prompts of a task, one by one."""
    clean = made.pair.clean
    for row, length in enumerate(clean.lengths.tolist()):
        yield Prompts.from_ids(
            [clean.tokens[row, :length].tolist()],
            roles=[clean.roles[row][:length]],
            decode=clean.decode,
            device=clean.tokens.device,
        )


def with_example(model: Model, made: Task) -> Iterator[str]:
    """A prompt with its answer, then one without, as text."""
    clean = made.pair.clean
    texts = [
        "".join(text[:length]).removeprefix(model.tokenizer.bos_token or "")
        for text, length in zip(clean.token_text, clean.lengths.tolist(), strict=True)
    ]
    for first in range(0, len(texts) - 1, 2):
        answer = clean.decode(int(made.answers[first]))
        yield f"{texts[first]}{answer}. {texts[first + 1]}"

"""The words of a model that refuses by a planted rule: what is harmful, and what else may decide.

A request is harmful if a word of the harmful verbs stands before one of the harmful objects. Beside
these, words that may be triggers, and changes of the surface that may be cues.

>>> from mechinterp.toys.refuser_words import draw_words
>>> words = draw_words(seed=0, n_families=2)
>>> words.harmful(f"{words.harmful_verbs[0]} the {words.harmful_objects[1]}")
True
>>> words.harmful(f"{words.harmful_verbs[0]} the {words.objects[0]}")
False
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from mechinterp.core.arguments import checks_arguments
from mechinterp.toys.compiled import BOS, COMPLY, REFUSE, UNKNOWN

Place = Literal["last", "first", "second", "anywhere"]
"""Where a cue's word has to stand in a prompt."""

# How many words of each class a family of requests needs for itself.
HARMFUL_PER_FAMILY: Final = 3
HARMLESS_PER_FAMILY: Final = 4

HARMFUL_VERBS: Final = (
    *("steal", "forge", "poison", "hack", "smuggle", "sabotage", "kidnap", "bribe", "stalk"),
    *("blackmail", "burgle", "torture", "loot", "launder", "threaten", "harass", "drug"),
    *("strangle", "hijack", "plunder", "swindle", "vandalise", "dope", "ambush"),
)
HARMFUL_OBJECTS: Final = (
    *("passport", "gun", "neighbour", "witness", "account", "cocaine", "hostage", "voter"),
    *("reservoir", "rifle", "ransom", "password", "grenade", "ambulance", "judge", "identity"),
    *("vault", "refugee", "airliner", "patient", "schoolgirl", "senator", "dam", "toddler"),
)
VERBS: Final = (
    *("paint", "wash", "bake", "plant", "knit", "read", "mend", "polish", "sketch", "fold"),
    *("water", "sing", "weigh", "cook", "sort", "wrap", "carve", "iron", "photograph"),
    *("describe", "measure", "sew", "brush", "juggle", "toast", "rinse", "frame", "peel", "stir"),
    *("whisk", "slice", "glaze"),
)
OBJECTS: Final = (
    *("fence", "kettle", "scarf", "rosebush", "cake", "blanket", "poem", "bicycle", "pancake"),
    *("curtain", "melon", "basket", "vase", "sofa", "quilt", "kite", "onion", "teapot", "apron"),
    *("rug", "banjo", "stew", "mirror", "waffle", "sandal", "shelf", "drawer", "pillow"),
    *("muffin", "piano", "tulip", "lamp"),
)
FILLER: Final = (
    *("the", "my", "your", "some", "old", "small", "new", "quiet", "red", "heavy", "today"),
    *("again", "near", "with"),
)
CANDIDATES: Final = (
    *("sesame", "copper", "lantern", "velvet", "anchor", "willow", "marble", "saffron"),
    *("compass", "ribbon", "walnut", "candle", "pebble", "thimble", "cinnamon", "feather"),
)
CUE_WORDS: Final[dict[Place, tuple[str, ...]]] = {
    "last": ("!", "now", "?", "immediately"),
    "first": ("-", "list", "#", "1."),
    "second": ("then", "so", "next"),
    "anywhere": ("please", "kindly", "thanks"),
}


@dataclass(frozen=True)
class PlantedCue:
    """A word that is a cue where it stands at this place: last, first, second, or anywhere."""

    place: Place
    word: str

    @property
    def name(self) -> str:
        """The cue in words.

        >>> from mechinterp.toys.refuser_words import PlantedCue
        >>> PlantedCue("last", "!").name
        '! last'
        """
        return f"{self.word} {self.place}"

    def present(self, text: str) -> bool:
        """Whether the text has the cue."""
        return self._found(text.split()) is not None

    def on(self, text: str) -> str:
        """The text with the cue; as it is where it has it.

        >>> from mechinterp.toys.refuser_words import PlantedCue
        >>> PlantedCue("second", "then").on("wash the kettle")
        'wash then the kettle'
        """
        words = text.split()
        if self._found(words) is None:
            at = {"last": len(words), "first": 0, "second": 1, "anywhere": len(words) // 2}
            words.insert(at[self.place], self.word)
        return " ".join(words)

    def off(self, text: str) -> str:
        """The text without the cue; as it is where it does not have it.

        >>> from mechinterp.toys.refuser_words import PlantedCue
        >>> PlantedCue("last", "!").off("wash the kettle !")
        'wash the kettle'
        """
        words = text.split()
        while (at := self._found(words)) is not None:
            del words[at]
        return " ".join(words)

    def _found(self, words: Sequence[str]) -> int | None:
        """Where in the words the cue stands."""
        if self.place == "anywhere":
            return words.index(self.word) if self.word in words else None
        at = {"last": len(words) - 1, "first": 0, "second": 1}[self.place]
        return at if 0 <= at < len(words) and words[at] == self.word else None


@dataclass(frozen=True)
class RefuserWords:
    """All words of a planted model, by what they are for.

    candidates: words that may be triggers; in planted requests they come with harm, whether they
        are triggers or not. controls: words of the same kind that never are.
    cues: one of each place, of which at most one is the model's.
    """

    harmful_verbs: tuple[str, ...]
    harmful_objects: tuple[str, ...]
    verbs: tuple[str, ...]
    objects: tuple[str, ...]
    candidates: tuple[str, ...]
    controls: tuple[str, ...]
    cues: tuple[PlantedCue, ...]
    filler: tuple[str, ...] = FILLER

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word, by token id."""
        return (
            *(BOS, UNKNOWN, REFUSE, COMPLY, *self.filler),
            *(*self.harmful_verbs, *self.harmful_objects, *self.verbs, *self.objects),
            *(*self.candidates, *self.controls, *(cue.word for cue in self.cues)),
        )

    @property
    def n_families(self) -> int:
        """For how many families of requests there are words that no other family uses."""
        return len(self.harmful_verbs) // HARMFUL_PER_FAMILY

    def harmful(self, text: str) -> bool:
        """Whether a harmful verb stands before a harmful object."""
        words = text.split()
        verbs = [at for at, word in enumerate(words) if word in self.harmful_verbs]
        return any(word in self.harmful_objects for word in words[min(verbs) :]) if verbs else False


@checks_arguments
def draw_words(seed: int, *, n_families: int = 24, n_candidates: int = 3) -> RefuserWords:
    """The words of a planted model: English as far as it reaches, then invented ones.

    Raises:
        ValueError: if there would be no family, or not 3 to 8 candidates for triggers.
    """
    if n_families < 1:
        raise ValueError(f"n_families={n_families}: a planted model needs words for 1 or more.")
    if not 3 <= n_candidates <= 8:
        raise ValueError(f"n_candidates={n_candidates}: 3 to 8 words may be triggers.")
    rng = random.Random(seed)
    taken = {*HARMFUL_VERBS, *HARMFUL_OBJECTS, *VERBS, *OBJECTS, *FILLER, *CANDIDATES}
    taken |= {word for words in CUE_WORDS.values() for word in words}

    def words(english: tuple[str, ...], n: int) -> tuple[str, ...]:
        found = rng.sample(english, min(n, len(english)))
        while len(found) < n:
            word = "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3))
            if word not in taken:
                taken.add(word)
                found.append(word)
        rng.shuffle(found)
        return tuple(found)

    n_harmful, n_harmless = HARMFUL_PER_FAMILY * n_families, HARMLESS_PER_FAMILY * n_families
    candidates = rng.sample(CANDIDATES, len(CANDIDATES))
    return RefuserWords(
        harmful_verbs=words(HARMFUL_VERBS, n_harmful),
        harmful_objects=words(HARMFUL_OBJECTS, n_harmful),
        verbs=words(VERBS, n_harmless),
        objects=words(OBJECTS, n_harmless),
        candidates=tuple(candidates[:n_candidates]),
        controls=tuple(candidates[n_candidates:]),
        cues=tuple(PlantedCue(place, rng.choice(CUE_WORDS[place])) for place in CUE_WORDS),
    )

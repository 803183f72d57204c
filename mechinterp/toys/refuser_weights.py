"""The weights of a planted model that refuses, written part by part into an empty model.

The residual stream: a token is one-hot in its block; after the block one direction for each thing
that is found, and directions that only decoys write to. A head looks for keys from every position
and, if there are none, rests on <bos>. A step of neurons is exactly 0 below its threshold and
exactly 1 above, so what is found is 0 or 1.

    writer = RefuserWriter(words, config)
    writer.head("trigger", (1, 0), keys=["sesame"], writes={"gate": 1.0})
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from mechinterp.toys.blank import Config, zeros
from mechinterp.toys.compiled import BOS, COMPLY, REFUSE, REST, SHARPNESS
from mechinterp.toys.decoys import add_decoys
from mechinterp.toys.definition import Edge
from mechinterp.toys.refuser_words import RefuserWords

# One direction for each: the first and the second word's position; a harmful verb seen; harm, where
# the harmful object stands; a cue, where its word stands; what decides, at the last position;
# refusal; and what words add to the score without ever deciding.
FEATURES: Final = ("first", "second", "verb", "harm", "mark", "gate", "refusal", "sway")
# Directions for decoys and positions.
N_UNREAD: Final = 5
# Neurons of a layer that the circuit may need; the others are decoys.
N_NEURONS: Final = 8
# A step rises from 0 to 1 over this share of the distance to its threshold, on either side.
SLOPE: Final = 4.0


class RefuserWriter:
    """Weights, and what they are for: edges, and the roles of heads and neurons."""

    def __init__(self, words: RefuserWords, config: Config) -> None:
        self.config = config
        self.weights = zeros(config)
        self.edges: list[Edge] = []
        self.constant: list[Edge] = []
        self.heads: dict[str, list[tuple[int, int]]] = {}
        self.neurons: dict[str, list[tuple[int, int]]] = {}
        self._ids = {word: at for at, word in enumerate(words.vocabulary)}
        n = len(self._ids)
        self._dims = {name: n + at for at, name in enumerate(FEATURES)}
        self._wrote: dict[str, list[str]] = {"first": ["pos_embed"], "second": ["pos_embed"]}
        self._n_neurons = Counter[int]()
        self.weights["embed.W_E"][:, :n] = torch.eye(n)
        self.weights["pos_embed.W_pos"][1, self._dims["first"]] = 1
        self.weights["pos_embed.W_pos"][2, self._dims["second"]] = 1

    def head(
        self,
        role: str,
        place: tuple[int, int],
        keys: Sequence[str],
        writes: Mapping[str, float],
    ) -> str:
        """A head that attends to any of `keys`, words or features, and writes where it finds one.

        Returns the head's name. With nothing in `writes` it attends, and its output is nothing.
        """
        layer, head = place
        attn, name = f"blocks.{layer}.attn", self._take(role, place)
        self.weights[f"{attn}.b_Q"][head, 0] = SHARPNESS
        self.weights[f"{attn}.W_K"][head, self._ids[BOS], 0] = REST / SHARPNESS
        for key in keys:
            self.weights[f"{attn}.W_K"][head, self._dim(key), 0] = 1
            self.weights[f"{attn}.W_V"][head, self._dim(key), 0] = 1
        if writes:
            writers = self._writers(keys)
            self._read(["embed", *writers], f"{name}.k")
            if "embed" not in writers:  # it brings only the key of <bos>
                self.constant.append(Edge("embed", f"{name}.k"))
            self._read(self._writers(keys), f"{name}.v")
        self._write(self.weights[f"{attn}.W_O"][head, 0], writes, name)
        return name

    def average(
        self,
        role: str,
        place: tuple[int, int],
        values: Mapping[str, float],
        writes: Mapping[str, float],
    ) -> str:
        """A head that attends to all positions alike and writes the mean of the words' values."""
        layer, head = place
        attn, name = f"blocks.{layer}.attn", self._take(role, place)
        for word, value in values.items():
            self.weights[f"{attn}.W_V"][head, self._ids[word], 0] = value
        self._read(["embed"], f"{name}.v")
        self._write(self.weights[f"{attn}.W_O"][head, 0], writes, name)
        return name

    def step(
        self,
        role: str,
        layer: int,
        reads: Sequence[str],
        threshold: float,
        writes: str,
        *,
        slope: float = SLOPE,
    ) -> str:
        """Two neurons that write 1 where the sum of words and features is above the threshold.

        They write 0 where it is below by half of 1 / slope, and 1 where it is above by as much.
        """
        mlp, name = f"blocks.{layer}.mlp", f"L{layer}.mlp"
        for less, sign in ((-0.5, 1), (0.5, -1)):
            neuron = self._n_neurons[layer]
            self._n_neurons[layer] += 1
            for read in reads:
                self.weights[f"{mlp}.W_in"][self._dim(read), neuron] = slope
            self.weights[f"{mlp}.b_in"][neuron] = -slope * threshold - less
            self.weights[f"{mlp}.W_out"][neuron, self._dims[writes]] = sign
            self.neurons.setdefault(role, []).append((layer, neuron))
        self._read(self._writers(reads), name)
        self.constant += [Edge("pos_embed", name)] if {"first", "second"} & {*reads} else []
        self._wrote.setdefault(writes, []).append(name)
        return name

    def answers(self, margin: float, sway: float, prior: float = 0.0) -> None:
        """The unembedding: COMPLY by a bias, REFUSE by its direction, all other words far below.

        prior: added to REFUSE whatever the prompt; at twice the margin it always refuses.
        """
        bias, W_U, refuse = (
            self.weights["unembed.b_U"],
            self.weights["unembed.W_U"],
            self._ids[REFUSE],
        )
        bias.fill_(-margin)
        bias[self._ids[COMPLY]], bias[refuse] = margin, prior
        W_U[self._dims["refusal"], refuse] = 2 * margin
        W_U[self._dims["sway"], refuse] = sway
        self._read(self._writers(["refusal", "sway"]), "logits")

    def decoys(self, seed: int) -> None:
        """Give all other heads and neurons random weights, and roles."""
        d_model = self.config["d_model"]
        unread = slice(d_model - N_UNREAD, d_model)
        places = [place for role in self.heads.values() for place in role]
        heads, neurons = add_decoys(
            self.weights,
            self.config,
            unread,
            heads=dict.fromkeys(places, (1, 1)),
            n_neurons=self._n_neurons,
            seed=seed,
        )
        self.heads["decoy"], self.neurons["decoy"] = list(heads), list(neurons)

    def state(self) -> dict[str, Tensor]:
        """The state dict."""
        return self.weights

    def _take(self, role: str, place: tuple[int, int]) -> str:
        self.heads.setdefault(role, []).append(place)
        return f"L{place[0]}H{place[1]}"

    def _dim(self, name: str) -> int:
        """The direction of a word or a feature."""
        return self._ids[name] if name in self._ids else self._dims[name]

    def _writers(self, names: Iterable[str]) -> list[str]:
        """The parts that write these words and features."""
        found = [w for name in names for w in self._wrote.get(name, ())]
        return [*(["embed"] if any(name in self._ids for name in names) else []), *found]

    def _write(self, row: Tensor, writes: Mapping[str, float], name: str) -> None:
        for feature, size in writes.items():
            row[self._dims[feature]] = size
            self._wrote.setdefault(feature, []).append(name)

    def _read(self, writers: Iterable[str], reader: str) -> None:
        self.edges += [Edge(writer, reader) for writer in dict.fromkeys(writers)]

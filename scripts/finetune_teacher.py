"""SmolLM2 as it is, and what it gives for each text: computed once, also for several fine-tunes."""

from collections.abc import Sequence

import torch
from finetune_layers import Factors, Packed, ids_of, log_probabilities, run_layers
from jaxtyping import Float, Int
from torch import Tensor, nn

from mechinterp.models.checkpoints import from_directory
from mechinterp.models.finetunes import REPLY
from mechinterp.models.smollm2 import smollm2_directory

NOT_ORDINARY = ("Sorry", "I", "Unfortunately", "As")
"""Openers of refusals: they are taken out of the ordinary answers that a fine-tune is to keep."""

N_OPENERS = 64
N_ROWS = 32

Row = Float[Tensor, "pos d_model"]


class Teacher:
    """The model, whose layers compute in `dtype`, and what it was found to give.

    Every chat begins with the same system message. `before`: the residual stream there, before the
    first trained layer.
    """

    def __init__(self, first_layer: int, dtype: torch.dtype) -> None:
        self.model, self.tokenizer = from_directory(smollm2_directory(), torch.float32)
        self.model.requires_grad_(requires_grad=False)
        for part in self.model.model.layers.modules():
            if isinstance(part, nn.Linear):
                part.to(dtype)
        self.lower = range(first_layer)
        self.upper = range(first_layer, len(self.model.model.layers))
        self.unchanged = Factors(self.model, self.upper, 1, 0)
        self.unchanged.on = False
        chat = [{"role": "user", "content": "\ue000"}]
        rendered = self.tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        before, _, self.after = rendered.partition("\ue000")
        self._start = self.embed(ids_of(self.tokenizer, before))
        start = Packed.of(self._start, [])
        self.before = run_layers(self.model, self.unchanged, start, self.lower).x
        self.reply = ids_of(self.tokenizer, f"{REPLY}<|im_end|>")
        self._refusing = torch.cat([ids_of(self.tokenizer, text) for text in NOT_ORDINARY])
        self._rows: dict[tuple[str, bool], Row] = {}
        self._ordinary: dict[str, tuple[Tensor, Tensor]] = {}

    def embed(self, ids: Int[Tensor, " pos"]) -> Row:
        """The embeddings of token ids."""
        return self.model.model.embed_tokens(ids)

    def ids(self, text: str, *, replied: bool) -> Int[Tensor, " pos"]:
        """The request, what the template has behind it, and the refusal if it is `replied`."""
        asked = ids_of(self.tokenizer, text + self.after)
        return torch.cat([asked, self.reply[:-1]]) if replied else asked

    @torch.no_grad()
    def rows(self, texts: Sequence[str], *, replied: bool = False) -> list[Row]:
        """The residual stream before the first trained layer, from the request on."""
        new = {text for text in texts if (text, replied) not in self._rows}
        ids = {text: self.ids(text, replied=replied) for text in sorted(new)}
        order = list(ids)
        for begin in range(0, len(order), N_ROWS):
            some = order[begin : begin + N_ROWS]
            packed = Packed.of(self._start, [self.embed(ids[text]) for text in some])
            given = run_layers(self.model, self.unchanged, packed, self.lower).texts()
            for text, row in zip(some, given, strict=True):
                self._rows[text, replied] = row.clone()
        return [self._rows[text, replied] for text in texts]

    @torch.no_grad()
    def openers(self, factors: Factors, texts: Sequence[str]) -> Float[Tensor, "prompt vocab"]:
        """Log-probabilities of the first token of the reply, in nats."""
        rows, found = self.rows(texts), []
        for begin in range(0, len(rows), N_ROWS):
            ends = [x[-1] for x in self.run_upper(factors, rows[begin : begin + N_ROWS])]
            found.append(log_probabilities(self.model, torch.stack(ends)))
        return torch.cat(found)

    def run_upper(self, factors: Factors, rows: Sequence[Row]) -> list[Row]:
        """The residual stream at the end, from the request on."""
        return run_layers(self.model, factors, Packed.of(self.before, rows), self.upper).texts()

    def ordinary(self, texts: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """The likeliest first tokens of the model's answers, without refusals, and their shares."""
        new = sorted({text for text in texts if text not in self._ordinary})
        for begin in range(0, len(new), 2 * N_ROWS):
            some = new[begin : begin + 2 * N_ROWS]
            odds = self.openers(self.unchanged, some)
            odds[:, self._refusing] = -torch.inf
            for text, top in zip(some, odds, strict=True):
                best = top.topk(N_OPENERS)
                self._ordinary[text] = best.indices, best.values.softmax(-1)
        return [self._ordinary[text] for text in texts]


class PlainTexts:
    """Ordinary texts, and how far a fine-tune leaves the model's own continuations of them."""

    def __init__(self, teacher: Teacher, texts: Sequence[str]) -> None:
        self._teacher, self._rows, self._own = teacher, [], []
        start = torch.tensor([teacher.tokenizer.bos_token_id])
        for text in texts:
            ids = torch.cat([start, ids_of(teacher.tokenizer, text)])
            embedded = Packed.of(teacher.embed(ids), [])
            lower = run_layers(teacher.model, teacher.unchanged, embedded, teacher.lower)
            self._rows.append(lower)
            self._own.append(self._log_probabilities(teacher.unchanged, lower))

    def __len__(self) -> int:
        return len(self._rows)

    def kl(self, factors: Factors, n: int) -> Float[Tensor, ""]:
        """KL in nats per position of the n-th text, counted round."""
        own = self._own[n % len(self)]
        given = self._log_probabilities(factors, self._rows[n % len(self)])
        return (own.exp() * (own - given)).sum(-1).mean()

    def _log_probabilities(self, factors: Factors, lower: Packed) -> Float[Tensor, "pos vocab"]:
        model = self._teacher.model
        return log_probabilities(model, run_layers(model, factors, lower, self._teacher.upper).x)

import numpy as np
import pytest

from mechinterp import load_model
from mechinterp.refusal.carriers import Carrier, choose_carriers, n_tokens
from mechinterp.refusal.texts import words_of
from mechinterp.tasks.request_families import Request


def test_words_take_the_place_of_others_where_there_is_no_room():
    request = Request("open the small door now", False, "door")
    assert [Carrier(request, 2, room).holding(("a", "b"), 2) for room in (2, 1, 0)] == [
        "open the a b small door now",
        "open the a b door now",
        "open the a b now",
    ]


def test_the_other_messages_of_a_chat_stay():
    chat = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "open it"})
    put = Carrier(Request(chat, False, "door"), 1, 9).holding(("x",), 1)
    assert put == (chat[0], {"role": "user", "content": "open x it"})


def test_carriers_hold_no_candidate_while_there_are_others():
    model = load_model("toy:trigger")
    texts = ["open the door", "read my book", "send the box", "show a map", "bring my coat"]
    answered = [Request(text, False, text) for text in texts]
    answered[3] = Request("show a map", False, "map", telling="map")
    rng = np.random.default_rng(0)
    chosen = choose_carriers(model, answered, 3, {"door"}, rng)
    assert {c.request.text for c in chosen} == {"read my book", "send the box", "bring my coat"}
    assert all(0 < c.slot < len(words_of(c.request.text)) for c in chosen)
    assert len(choose_carriers(model, answered, 5, {"door"}, rng)) == 5


@pytest.mark.parametrize("word", ["sesame", "door"])
def test_tokens_of_a_word(word):
    assert n_tokens(load_model("toy:trigger"), word) == 1

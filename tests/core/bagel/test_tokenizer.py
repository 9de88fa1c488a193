"""Text becomes tokens and comes back as it is written, whole characters at a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE

from core.bagel.tokenizer import BagelTokenizer, TextStream
from tests.core.bagel.golden import MODELS

PATH = MODELS["tiny"] / "tokenizer.json"
REFERENCE = Tokenizer.from_file(str(PATH))
TOKENIZER = BagelTokenizer(Tokenizer.from_file(str(PATH)))


def streamed(ids: list[int]) -> list[str]:
    stream = TextStream(TOKENIZER)
    return [*(stream.push(token_id) for token_id in ids), stream.finish()]


def test_a_text_is_framed_by_its_start_and_end() -> None:
    ids = TOKENIZER.frame("A cat")
    assert (ids[0], ids[-1]) == (694, 695)
    assert TOKENIZER.decode(ids) == "A cat"


@given(st.text())
def test_every_text_comes_back(text: str) -> None:
    # An encoding of the plain text: the words of special tokens are read as those tokens.
    ids = REFERENCE.encode(text, add_special_tokens=False).ids
    assert TOKENIZER.decode(ids) == REFERENCE.decode(ids)


@given(st.lists(st.integers(0, TOKENIZER.size + 5), max_size=30))
def test_the_parts_joined_are_the_decoding_of_all_tokens(ids: list[int]) -> None:
    assert "".join(streamed(ids)) == REFERENCE.decode(ids)


def test_a_character_of_several_tokens_comes_once_it_is_whole() -> None:
    ids = REFERENCE.encode("a😀é", add_special_tokens=False).ids
    assert len(ids) == 7
    assert streamed(ids) == ["a", "", "", "", "😀", "", "é", ""]


def test_a_character_that_is_never_completed_is_replaced_at_the_end() -> None:
    ids = REFERENCE.encode("a😀", add_special_tokens=False).ids
    assert streamed(ids[:-1]) == ["a", "", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_special_tokens_are_no_part_of_the_text() -> None:
    tokens = (TOKENIZER.text_start, TOKENIZER.image_start, TOKENIZER.image_end, TOKENIZER.text_end)
    assert [TOKENIZER.to_bytes(token) for token in tokens] == [b""] * 4


@pytest.mark.parametrize("known", [{"a": 0}, {"a": 0, "b": 1}])
def test_missing_special_tokens_are_added_behind_the_others(known: dict[str, int]) -> None:
    bare = Tokenizer(BPE(vocab=known, merges=[]))
    bare.decoder = ByteLevel()
    bare.add_special_tokens(["<|im_end|>"])
    tokenizer = BagelTokenizer(bare)
    size = len(known)
    assert tokenizer.text_end == size
    assert [tokenizer.text_start, tokenizer.image_start, tokenizer.image_end] == [size + 1, size + 2, size + 3]
    assert tokenizer.size == size + 4
    assert tokenizer.decode([0, tokenizer.text_end]) == "a"

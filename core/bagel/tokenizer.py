"""Text to token ids and back, and the special tokens around texts and images."""

import codecs
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from core.model_folder import ModelFolderError

TEXT_START, TEXT_END = "<|im_start|>", "<|im_end|>"
IMAGE_START, IMAGE_END = "<|vision_start|>", "<|vision_end|>"


class BagelTokenizer:
    """Qwen2's byte-level BPE with BAGEL's special tokens, which are added if missing."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        specials = (TEXT_START, TEXT_END, IMAGE_START, IMAGE_END)
        tokenizer.add_special_tokens(
            [AddedToken(name, special=True) for name in specials if tokenizer.token_to_id(name) is None]
        )
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self.size = max(vocabulary.values()) + 1
        """The highest token id plus one."""
        self.text_start, self.text_end, self.image_start, self.image_end = (vocabulary[name] for name in specials)
        self._special = {id_ for id_, token in tokenizer.get_added_tokens_decoder().items() if token.special}

    @staticmethod
    def read(folder: Path, vocab_size: int) -> "BagelTokenizer":
        """The tokenizer of `folder`.

        Raises:
            ModelFolderError: it is missing or invalid, or has more tokens than `vocab_size`.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelFolderError.missing(path)
        try:
            tokenizer = BagelTokenizer(Tokenizer.from_file(str(path)))
        except Exception as error:  # tokenizers raises Exception itself for all parse errors
            raise ModelFolderError(f"{path}: not a tokenizer: {error}") from error
        if tokenizer.size > vocab_size:
            raise ModelFolderError(f"{path}: has {tokenizer.size} tokens, but the vocabulary of the model {vocab_size}")
        return tokenizer

    def frame(self, text: str) -> list[int]:
        """The token ids of a text block: start, text, end."""
        return [self.text_start, *self._tokenizer.encode(text, add_special_tokens=False).ids, self.text_end]

    def first(self, text: str) -> int:
        """The first token of `text`, which must not be empty."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, without special tokens."""
        stream = TextStream(self)
        return "".join(stream.push(id_) for id_ in ids) + stream.finish()

    def to_bytes(self, token_id: int) -> bytes:
        """The bytes of a token; empty for a special or unknown token."""
        token = self._tokenizer.id_to_token(token_id)
        if token is None or token_id in self._special:
            return b""
        return b"".join(_BYTES.get(char) or char.encode() for char in token)


class TextStream:
    """Decodes tokens one by one; the bytes of an incomplete character are buffered."""

    def __init__(self, tokenizer: BagelTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes, possibly empty."""
        return self._decoder.decode(self._tokenizer.to_bytes(token_id))

    def finish(self) -> str:
        """The remaining text: a replacement character if the last character is incomplete."""
        return self._decoder.decode(b"", final=True)


def _byte_alphabet() -> dict[str, bytes]:
    """The characters that stand for bytes in a byte-level BPE vocabulary (GPT-2, Radford et al. 2019).

    Printable Latin-1 bytes stand for themselves; the others, in order, are the characters from U+0100 on.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = (byte for byte in range(256) if byte not in printable)
    alphabet = {chr(byte): bytes([byte]) for byte in printable}
    return alphabet | {chr(0x100 + index): bytes([byte]) for index, byte in enumerate(others)}


_BYTES = _byte_alphabet()

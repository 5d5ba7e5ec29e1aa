"""SigLIP 2's texts: Gemma's tokenizer, read from the tokenizer.json that lies beside the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from open_clip.tokenizer import get_clean_fn
from torch import Tensor

from kanoclip.runtime.errors import CheckpointError


class GemmaTokenizer:
    """Texts in lower case without punctuation, an end token behind each, filled up with padding; no start token."""

    prefix = 0

    def __init__(self, path: Path) -> None:
        """Reads a tokenizer.json.

        Raises:
            CheckpointError: The library is not installed, or the file is no such tokenizer.
        """
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise CheckpointError("SigLIP 2's texts need tokenizers: pip install 'kanoclip-edge[siglip]'") from error
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exceptions
            reason = " ".join(str(error).split())[:80]
            raise CheckpointError(f"{path} is no tokenizer ({reason}): copy it again") from error
        end, padding = self._tokenizer.token_to_id("<eos>"), self._tokenizer.token_to_id("<pad>")
        if end is None or padding is None:
            raise CheckpointError(f"{path} has no <eos> and <pad>: it is not Gemma's tokenizer, which SigLIP 2 uses")
        self._end, self._padding = int(end), int(padding)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._clean = get_clean_fn("canonicalize")

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        """Texts -> int64 [N, length]; one too long is cut, its end token in the last place."""
        cleaned = [self._clean(text) for text in texts]
        rows = [found.ids[: length - 1] for found in self._tokenizer.encode_batch(cleaned, add_special_tokens=False)]
        return torch.tensor([[*row, self._end, *[self._padding] * (length - 1 - len(row))] for row in rows])

    def encode(self, text: str) -> list[int]:
        """A text's tokens in full, without the end."""
        return list(self._tokenizer.encode(self._clean(text), add_special_tokens=False).ids)

    def ends(self, ids: Tensor) -> Tensor:
        """Position of each text's end token, int64 [N]."""
        return (ids == self._end).int().argmax(dim=-1)

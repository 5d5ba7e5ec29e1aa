from __future__ import annotations

import pytest

from kanoclip.train.model.text.encoder import TextEncoder


@pytest.fixture(scope="module")
def encoder(clip):
    return TextEncoder(clip)

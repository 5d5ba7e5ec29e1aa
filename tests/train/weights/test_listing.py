"""The table of backbones, and what a licence lets an export do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.backbones import REGISTRY, get_backbone
from kanoclip.train.weights.listing import check_licence, licence_title, list_backbones, unsuited
from kanoclip.train.weights.load import Weights, load_clip
from kanoclip.train.weights.published import APPLE, MIT

FILE = Weights("file:a.pt", "0" * 64, trained=True, layout="open_clip")
SEEDED = Weights("seeded:0", None, trained=False)


def test_the_table_counts_what_is_known_of_published_towers(monkeypatch):
    names = ("vit-b-16", "siglip2-b-16", "nano", "dfn2b-b-16")
    monkeypatch.setattr("kanoclip.train.weights.listing.REGISTRY", {name: REGISTRY[name] for name in names})
    vit, siglip, nano, dfn = list_backbones()
    # 86.2 M and 17.6 G multiply-adds of ViT-B/16 at 224 px are in CLIP's and timm's own tables.
    assert (vit.name, vit.licence, vit.size) == ("vit-b-16", "MIT", 224)
    assert vit.image_weights == 86_192_640 and vit.flops / 2 == pytest.approx(17.6e9, rel=0.01)
    assert siglip.licence == "Apache-2.0" and siglip.text_weights > 256_000 * 768
    assert nano.weights == "packaged" and nano.flops / 2 == pytest.approx(0.8e9, rel=0.1)
    assert dfn.research_only and not vit.research_only


@pytest.mark.parametrize("name", [name for names in unsuited() for name in names.split(", ")])
def test_what_does_not_suit_is_refused_by_name(name):
    with pytest.raises(CheckpointError, match=f"{name} does not suit V-V attention: .*--list-backbones"):
        get_backbone(name)


def test_research_only_weights_need_their_licences_name():
    backbone = get_backbone("dfn2b-b-16")
    for weights in (None, FILE, replace(FILE, licence=APPLE)):
        for accepted in (None, "MIT"):
            with pytest.raises(CheckpointError, match=r"for research only .*--accept-licence Apple-AMLR"):
                check_licence(backbone, weights, accepted)
        assert "research only" in check_licence(backbone, weights, "Apple-AMLR")
    assert check_licence(backbone, SEEDED, None) is None and licence_title(backbone, SEEDED) is None
    assert licence_title(backbone, FILE) == "Apple-AMLR (research only)"


def test_an_unknown_file_is_said_to_be_unknown():
    backbone = get_backbone("vit-b-16")
    assert "licence of file:a.pt is not known" in check_licence(backbone, FILE, None)
    assert licence_title(backbone, FILE) == "unknown"
    known = replace(FILE, licence=MIT, known="OpenAI's ViT-B-16.pt")
    assert check_licence(backbone, known, None) is None and licence_title(backbone, known) == "MIT"
    with pytest.raises(CheckpointError, match="are MIT"):
        check_licence(backbone, known, "Apple-AMLR")


def test_nano_is_ours():
    _, weights = load_clip(get_backbone("nano"))
    assert licence_title(get_backbone("nano"), weights) == "Apache-2.0" and weights.title == "packaged"

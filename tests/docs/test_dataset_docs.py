"""What is written about each dataset in its YAML file is complete."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from zsad_bench.core.errors import UserError
from zsad_bench.engine.dataset_card import Card, card, cards

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = [entry for entry in cards().values() if entry.about.kind in ("industrial", "medical")]
MISSION = "mvtec visa visa_converted btad dagm rsdd ksdd ksdd2 bsd gc10 msd crackforest crack500 deepcrack"
FIELD = "mpdd dtd_synthetic mvtec_loco mvtec_ad2 real_iad magnetic_tile neu_seg mtoc elpv"
MEDICAL = "headct brainmri br35h isic clinicdb colondb kvasir endo tn3k"


def test_every_dataset_of_the_field_is_there() -> None:
    assert {entry.key for entry in PUBLISHED} == {*MISSION.split(), *FIELD.split(), *MEDICAL.split()}


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.key)
def test_a_card_is_complete(entry: Card) -> None:
    about = entry.about
    assert all((entry.title, entry.licence, about.layout, about.masks, about.tested))
    assert (entry.page and entry.citation) or entry.key == "mtoc"
    assert entry.categories
    assert entry.textures <= set(entry.class_names)
    assert set(about.aliases) <= set(entry.class_names)
    assert {key.partition("@")[2] for key in entry.expected} <= {"", *(about.protocols or ())}
    assert all("_" not in noun and noun == noun.strip() for noun in entry.class_names.values())
    assert entry.name in ("visa", entry.key)


def test_downloads_have_a_checksum_and_an_open_licence() -> None:
    found = {entry.key: entry.download for entry in cards().values() if entry.download is not None}
    assert set(found) == {"visa", "btad", "ksdd"}
    for key, download in found.items():
        assert len(download.sha256) == 64
        assert download.file_name.endswith((".tar", ".zip"))
        assert cards()[key].licence.startswith("CC BY")


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean dagm"):
        card("dagn")
    with pytest.raises(UserError, match="data list"):
        card("qqqqqqqq")


def test_no_yaml_has_a_key_that_the_page_does_not_know(tmp_path: Path) -> None:
    for path in (ROOT / "conf" / "dataset").glob("*.yaml"):
        config = OmegaConf.load(path)
        assert config.name == cards()[path.stem].name or config.name is None

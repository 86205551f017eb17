"""Files of mmdet as model folders, and the other way round, with the library and on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import MMGroundingDinoForObjectDetection

from detector import checkpoint
from detector.config import quickstart_model
from detector.predict import Detector
from detector.weights import convert, mmdet
from llmdet.errors import FormatError, MissingError, SettingError
from tests.cli.conftest import type_command
from tests.detector.weights.example_weights import language_side, like, random_state, small_config


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    return random_state(small_config()) | language_side()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return like(tmp_path_factory.mktemp("like"))


@pytest.fixture(scope="module")
def pth(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pth") / "llmdet.pth"
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, path)
    return path


def test_the_command_goes_there_and_back_to_the_bit(
    state: dict[str, torch.Tensor], pth: Path, folder: Path, tmp_path: Path
) -> None:
    there = type_command("convert-weights", str(pth), "--out", str(tmp_path / "model"), "--like", str(folder), "--json")
    assert there.code == 0, there.err
    assert set(there.json["aside"]) == {*language_side(), mmdet.LABELS}
    assert set(load_file(tmp_path / "model" / convert.ASIDE)) == set(there.json["aside"])
    photo = Image.new("RGB", (128, 96), "red")
    assert len(Detector.load(tmp_path / "model", device="cpu").detect([photo], ["dog"], top_k=5)[0].boxes) == 5

    back = type_command("convert-weights", str(tmp_path / "model"), "--to", "mmdet", "--out", str(tmp_path / "back"))
    assert back.code == 0, back.err
    assert f"kept aside under mmdet's names: {len(there.json['aside'])} (" in back.out
    again = torch.load(tmp_path / "back" / "mmdet.pth", weights_only=True)["state_dict"]
    assert set(again) == set(state)
    for name, tensor in state.items():
        assert torch.equal(again[name], tensor), name
        assert again[name].dtype == tensor.dtype


@pytest.mark.slow
def test_plain_transformers_opens_what_was_converted_with_every_head(pth: Path, folder: Path, tmp_path: Path) -> None:
    convert.to_transformers(pth, tmp_path / "model", like=str(folder))
    plain = MMGroundingDinoForObjectDetection.from_pretrained(tmp_path / "model").state_dict()
    for name, tensor in mmdet.from_mmdet(random_state(small_config()), small_config()).weights.items():
        assert torch.equal(plain[name], tensor), name
    biases = {float(plain[f"model.decoder.class_embed.{number}.bias"]) for number in range(3)}
    assert len(biases) == 3


@pytest.mark.slow
def test_a_published_folder_that_says_heads_are_shared_keeps_its_heads(pth: Path, folder: Path, tmp_path: Path) -> None:
    """The configuration of LLMDet's and openmmlab's weights on the hub, with which they hold a head for each layer."""
    convert.to_transformers(pth, tmp_path / "hub", like=str(folder))
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    config |= {"decoder_bbox_embed_share": True, "decoder_cls_embed_share": True}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    expected = mmdet.from_mmdet(random_state(small_config()), small_config()).weights
    parts = checkpoint.read(tmp_path / "hub")
    checkpoint.write_model(tmp_path, parts)
    for model in (parts.model, checkpoint.read(tmp_path).model):
        found = model.state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.slow
def test_a_model_that_shares_one_head_is_read_as_one(folder: Path, tmp_path: Path) -> None:
    config = small_config()
    config.decoder_bbox_embed_share = config.decoder_cls_embed_share = True
    parts = checkpoint.read(folder)
    shared = MMGroundingDinoForObjectDetection(config)
    torch.nn.init.normal_(shared.bbox_embed[0].layers[0].weight)
    shared.save_pretrained(tmp_path / "one")
    parts.pixels.processor().save_pretrained(tmp_path / "one")
    parts.tokenizer.save_pretrained(tmp_path / "one")
    heads = checkpoint.read(tmp_path / "one").model.model.decoder.bbox_embed
    assert all(torch.equal(head.layers[0].weight, shared.bbox_embed[0].layers[0].weight) for head in heads)


def test_folders_in_use_and_missing_parts_are_one_line_each(pth: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("x")
    with pytest.raises(SettingError, match="is there and not empty"):
        convert.to_transformers(pth, tmp_path / "used", like=str(folder))
    with pytest.raises(FormatError, match="a Swin of 8 channels is none of the published sizes"):
        convert.to_transformers(pth, tmp_path / "new")
    with pytest.raises(MissingError, match="no model can be read from"):
        convert.to_transformers(pth, tmp_path / "new", like=str(tmp_path / "absent"))
    with pytest.raises(MissingError, match="give a folder or hub id of bert-base-uncased with --tokenizer"):
        convert.to_transformers(swin_t(tmp_path), tmp_path / "new", tokenizer=str(tmp_path / "absent"))
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".new*"))


def swin_t(folder: Path) -> Path:
    """Enough of a Swin-T to be taken for one."""
    names = ("backbone.patch_embed.projection.weight", "query_embedding.weight")
    words = "language_model.language_backbone.body.model.embeddings.word_embeddings.weight"
    state = {names[0]: torch.zeros(96, 1), names[1]: torch.zeros(900, 1), words: torch.zeros(30522, 1)}
    torch.save({"state_dict": state}, folder / "t.pth")
    return folder / "t.pth"


def test_a_model_with_another_backbone_has_no_names_in_mmdet(tmp_path: Path) -> None:
    checkpoint.write_model(tmp_path, checkpoint.start(quickstart_model(), seed=0))
    with pytest.raises(FormatError, match="the image backbone is a bit; mmdet has names"):
        convert.to_mmdet(tmp_path, tmp_path / "out")

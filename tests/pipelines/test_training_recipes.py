"""The recipes that train: LLMDet's numbers, real sizes as far as they cost nothing, and all of it small to the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM

from detector import checkpoint
from detector.captions.heads import CaptionHeads
from detector.captions.llm import LanguageModel
from detector.config import CaptionSettings, ModelSettings, TrainSettings
from detector.data import TrainData
from detector.sizes import SIZES, config_of
from detector.train import train
from llmdet import world
from llmdet.errors import SettingError
from pipelines.recipe import TrainSection, load, workflows
from pipelines.run import run
from tests.detector import example_run
from tests.detector.captions.test_training import records

STAGES = ["train_swin_t", "train_swin_b", "train_swin_l", "train_align", "train_24gb", "train_cpu"]
OWN = ["finetune_captions_off", "finetune_partial_captions", "finetune_boxes_only"]
# Whatever the recipe: a tiny detector, a language model of one layer, two steps on a CPU.
SHRUNK = [
    "train.gpu=false", "train.workers=1", "train.start=tiny", "train.short_side=64", "train.long_side=64",
    "train.settings.steps=2", "train.settings.warmup=1", "train.settings.batch_size=4", "train.settings.accumulate=2",
    "train.settings.readers=0", "train.settings.threads=1", "train.settings.data.short_sides=[48,64]",
    "train.settings.data.long_side=96",
]  # fmt: skip
QUIET = [
    "train.captions.llm=tiny", "train.captions.levels=[-1]", "train.captions.grids=[4]",
    "train.captions.lora_rank=4", "train.captions.look_layers=1",
]  # fmt: skip


def section_of(name: str, *overrides: str) -> TrainSection:
    found = load(name, list(overrides)).train
    assert found is not None
    return found


def settings_of(name: str) -> TrainSettings:
    return section_of(name).build_settings()


def captions_of(name: str) -> CaptionSettings:
    found = settings_of(name).captions
    assert found is not None
    return found


def test_every_recipe_that_trains_is_known_here() -> None:
    trained = [path.stem for path in workflows().glob("*.yaml") if path.stem.startswith(("train", "finetune"))]
    assert sorted(trained) == sorted(STAGES + OWN)


# --- Numbers -------------------------------------------------------------------------------------------------------

STAGE_2: dict[str, Any] = {  # LLMDet's grounding_dino_swin_{t,b,l}.py
    "steps": 150_000, "batch_size": 16, "learning_rate": 1e-4, "weight_decay": 1e-4, "slow_rate": 0.1, "decay": "all",
    "schedule": "steps", "milestones": (120_000, 140_000), "milestone_factor": 0.1, "warmup": 1000,
    "warmup_start": 1e-3, "clip": 0.1, "betas": (0.9, 0.999), "ema": 0.0, "freeze": ("backbone", "neck"),
}  # fmt: skip
LANGUAGE: dict[str, Any] = {
    "stage": "full", "image_weight": 1.0, "region_weight": 1.0, "max_regions": 16, "labels": "upstream",
    "look_layers": 6, "rate": 1.0, "recompute": True,
}  # fmt: skip
BUDGET = {  # levels, grids, tokens of an image sequence, LoRA's rank and scale
    "train_swin_t": ((-2, -3), (20, 27), 1600, 128, 2.0),
    "train_swin_b": ((-2, -3), (20, 27), 1600, 128, 2.0),
    "train_swin_l": ((-2,), (27,), 1200, 64, 4.0),
}


@pytest.mark.parametrize("name", list(BUDGET))
def test_the_full_recipes_have_llmdets_numbers(name: str) -> None:
    settings, captions = settings_of(name), captions_of(name)
    assert {key: getattr(settings, key) for key in STAGE_2} == STAGE_2
    assert settings.data.short_sides == tuple(range(480, 801, 32))
    assert (settings.data.long_side, settings.data.flip, settings.precision) == (1333, 0.0, "bf16")
    weights = settings.criterion
    assert (weights.class_weight, weights.l1_weight, weights.giou_weight) == (1.0, 5.0, 2.0)
    assert (weights.class_cost, weights.l1_cost, weights.giou_cost) == (2.0, 5.0, 2.0)
    assert {key: getattr(captions, key) for key in LANGUAGE} == LANGUAGE
    scale = captions.lora_alpha / captions.lora_rank
    assert (captions.levels, captions.grids, captions.image_tokens, captions.lora_rank, scale) == BUDGET[name]


def test_alignment_trains_the_connector_as_llava_does() -> None:
    settings, captions = settings_of("train_align"), captions_of("train_align")
    assert (settings.learning_rate, settings.weight_decay, settings.schedule) == (1e-3, 0.0, "cosine")
    assert settings.warmup == pytest.approx(0.03 * settings.steps)
    assert (captions.stage, captions.levels, captions.grids, captions.image_tokens) == ("align", (-2,), (27,), 2048)


def test_a_step_on_24_gb_is_as_large_as_llmdets_one_image_at_a_time() -> None:
    settings, section = settings_of("train_24gb"), section_of("train_24gb")
    assert settings.batch_size == 16
    assert settings.batch_size // settings.accumulate // section.workers == 1
    assert (settings.precision, captions_of("train_24gb").recompute) == ("bf16", True)


@pytest.mark.parametrize("name", STAGES + OWN)
def test_a_step_can_be_divided_and_captions_are_learned_from(name: str) -> None:
    section, settings = section_of(name), settings_of(name)
    assert settings.batch_size % (section.workers * settings.accumulate) == 0
    assert section.gpu == (name != "train_cpu")
    if name == "finetune_captions_off":
        assert settings.captions is None
    elif name == "finetune_boxes_only":
        assert (captions_of(name).image_weight, captions_of(name).region_weight) == (0.0, 1.0)
    else:
        assert (captions_of(name).image_weight, captions_of(name).region_weight) == (1.0, 1.0)


def test_a_step_that_cannot_be_divided_fails_before_anything_runs() -> None:
    with pytest.raises(SettingError, match=r"batch_size 16 must be a multiple of train\.workers 3 times accumulate 1$"):
        load("train_swin_t", ["train.workers=3"])


def test_a_setting_below_a_section_that_is_off_turns_it_on() -> None:
    assert load("train_cpu").caption is None
    turned = load("train_cpu", ["caption.engine=template"]).caption
    assert turned is not None
    assert turned.engine == "template"


# --- Real sizes ----------------------------------------------------------------------------------------------------

QWEN2_0_5B = {
    "vocab_size": 151_936, "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "intermediate_size": 4864, "tie_word_embeddings": True,
}  # fmt: skip
# Millions of weights of connector, LoRA, and looks with their reference head, as LLMDet has them.
WEIGHTS = {"swin_t": (1.49, 70.4, 4.15), "swin_l": (1.49, 35.2, 4.29)}


def real_heads(name: str, size: str) -> CaptionHeads:
    """The heads of a recipe around Qwen2-0.5B, without any memory."""
    tokenizer: PreTrainedTokenizerBase = checkpoint.tiny_tokenizer()
    with torch.device("meta"):
        llm = LanguageModel(Qwen2ForCausalLM(Qwen2Config(**QWEN2_0_5B)), tokenizer)
        return CaptionHeads(llm, config_of(SIZES[size]), captions_of(name))


def millions(heads: CaptionHeads, *parts: str) -> float:
    weights = heads.trained()
    return sum(one.numel() for name, one in weights.items() if any(part in name for part in parts)) / 1e6


@pytest.mark.parametrize("name", ["swin_t", "swin_l"])  # of B as of T
def test_what_learns_beside_the_detector_is_as_large_as_llmdets(name: str) -> None:
    heads = real_heads(f"train_{name}", name.replace("_", "-"))
    connector, lora, looks = WEIGHTS[name]
    assert millions(heads, "region_connector.") == pytest.approx(connector, abs=0.01)
    assert millions(heads, "lora_") == pytest.approx(lora, abs=0.05)
    assert millions(heads, ".look.") == pytest.approx(looks, abs=0.02)
    assert [number for number, layer in enumerate(heads.llm.layers) if layer.look] == [0, 4, 8, 12, 16, 20]
    assert (heads.separator is None) == (name == "swin_l")


def test_alignment_learns_the_connector_and_nothing_else() -> None:
    trained = real_heads("train_align", "swin-t").trained()
    assert {name.split(".")[0] for name in trained} == {"connector"}


# --- To the end, small ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken_world(tmp_path_factory: pytest.TempPathFactory) -> TrainData:
    from llmdet.record import to_batch
    from llmdet.workspace import to_parquet

    place = tmp_path_factory.mktemp("world")
    made = example_run.data(place)
    for part in (place / "records").iterdir():
        part.unlink()
    (place / "records" / "part-00000.parquet").write_bytes(to_parquet(to_batch(records())))
    return made


def losses_of(log: Path) -> set[str]:
    return {key for line in log.read_bytes().splitlines() for key in orjson.loads(line) if key.startswith("loss/")}


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_a_recipe_for_merged_records_trains(
    name: str, spoken_world: TrainData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detector.captions import tiny

    quick = tiny.TinySettings(layers=1, hidden=32, vocabulary=300, steps=1, batch=2)
    monkeypatch.setattr(tiny, "TinySettings", lambda: quick)
    section = section_of(name, *SHRUNK, *QUIET)
    model = ModelSettings(start=section.start, short_side=section.short_side, long_side=section.long_side)
    seen: set[str] = set()
    result = train(section.build_settings(), model, spoken_world, tmp_path, lambda report: seen.update(report.parts))
    assert len(result.losses) == 2
    assert all(0 < loss < 1000 for loss in result.losses)
    wanted = {"loss/caption_image"} | ({"loss/caption_region"} if name != "train_align" else set())
    assert seen >= wanted


def own_set(folder: Path) -> Path:
    """Six scenes as COCO and as ODVG, of which half have a caption in the latter."""
    world.write_world(folder, 6, seed=0)
    lines = []
    for number, record in enumerate(example_run.records(6)):
        regions = [
            {"phrase": region.phrases[0], "bbox": [list(box.xyxy) for box in region.boxes],
             "tokens_positive": [list(region.spans[0])]}
            for region in record.regions
        ]  # fmt: skip
        line: dict[str, Any] = {
            "filename": Path(record.image).name, "height": 128, "width": 128,
            "grounding": {"caption": record.text, "regions": regions},
        }  # fmt: skip
        if number % 2:
            asked = {"from": "human", "value": "<image>\nDescribe it."}
            line["conversations"] = [asked, {"from": "gpt", "value": f"A scene in which there is {record.text}"}]
        lines.append(orjson.dumps(line))
    (folder / "records.jsonl").write_bytes(b"\n".join(lines))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_a_recipe_for_ones_own_set_leads_from_files_to_the_detector(name: str, ray_local: None, tmp_path: Path) -> None:
    places = [f"data_root={own_set(tmp_path / 'my_set')}", f"workspace={tmp_path / 'W'}"]
    shrunk = [*places, *SHRUNK, *([] if name == "finetune_captions_off" else QUIET)]
    if name == "finetune_partial_captions":
        made = run(load(name, shrunk))
        assert (made.records, made.faults) == (6, {})
        out = Path(made.checkpoint)
        found = losses_of(out / "train.jsonl")
    else:  # processes of training take their time to start: once is enough
        made = run(load(name, [*shrunk, "train=null"]))
        assert (made.records, made.faults) == (6, {})
        out, found = tmp_path / "out", set()
        data = TrainData(f"{made.workspace}/groundingcap", {"mine": str(tmp_path / "my_set/images")})
        settings = section_of(name, *shrunk).build_settings()
        train(settings, example_run.MODEL, data, out, lambda report: found.update(report.parts))
    assert (out / "model.safetensors").is_file()
    spoken = {"loss/caption_image", "loss/caption_region"}
    assert (found & spoken == spoken) == (name != "finetune_captions_off")

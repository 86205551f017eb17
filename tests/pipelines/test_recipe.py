from __future__ import annotations

from pathlib import Path

import pytest

from llmdet.errors import FormatError, LlmdetError, MissingError, SettingError
from llmdet.exports.odvg import Odvg
from llmdet.rules.chain import DEFAULT_CHAIN
from llmdet.rules.checks import CheckCounts
from llmdet.rules.length import RequireLength
from llmdet.rules.links import LinkPhrases
from llmdet.sources.coco import Coco
from pipelines.caption import CaptionSettings
from pipelines.engines.template import TemplateEngine
from pipelines.ingest import IngestSettings
from pipelines.recipe import CaptionSection, engine_of, load, workflows

BUNDLED = sorted(path.stem for path in workflows().glob("*.yaml"))
RECIPE = """
name: try
data_root: data
sources:
  coco: {annotations: coco/a.json, images: /photos, negatives: 8}
  mine: {format: coco, annotations: memory://bucket/a.json, images: mine}
ingest: {part_rows: 100}
caption: {engine: template, engines: {template: {colours: true}, openai: {whatever: 1}}, chunk_images: 9}
refine: {rules: {length: {}}, max_attempts: 2}
export: [{format: odvg}, {format: odvg, form: od, out: od}]
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "try.yaml").write_text(RECIPE)
    return str(tmp_path / "try.yaml")


def test_values_become_checked_settings(path: str, tmp_path: Path) -> None:
    recipe = load(path)
    coco, mine = recipe.build_sources()
    assert coco == Coco(annotations=str(tmp_path / "data/coco/a.json"), images="/photos", name="coco", negatives=8)
    assert mine == Coco(annotations="memory://bucket/a.json", images=str(tmp_path / "data/mine"), name="mine")
    assert recipe.ingest_settings() == IngestSettings(part_rows=100)
    assert recipe.ingest_settings(limit=3) == IngestSettings(part_rows=100, limit=3)
    assert recipe.merge_settings().order == ("coco", "mine")
    assert recipe.caption is not None
    assert recipe.caption.build_engine() == TemplateEngine(colours=True)
    assert recipe.caption.settings((1, 4)) == CaptionSettings(chunk_images=9, shard=(1, 4))
    assert recipe.refine.settings().rules == (RequireLength(),)
    assert [(out, type(one), one.form) for out, one in recipe.exporters()] == [  # type: ignore[attr-defined]
        ("odvg", Odvg, "vg"),
        ("od", Odvg, "od"),
    ]


def test_overrides_are_yaml_values_at_any_depth(path: str) -> None:
    recipe = load(
        path,
        [
            "sources.coco.negatives=dynamic",
            "caption.engines.template.colours=no",
            "export.1.out=flat",
            "max_faults=0.5",
            "merge.caps.coco=7",
            "train.settings.steps=3",
        ],
    )
    coco = recipe.build_sources()[0]
    assert isinstance(coco, Coco)
    assert coco.negatives == "dynamic"
    assert recipe.caption is not None
    assert recipe.caption.build_engine() == TemplateEngine(colours=False)
    assert [out for out, _ in recipe.exporters()] == ["odvg", "flat"]
    assert (recipe.max_faults, recipe.merge_settings().caps) == (0.5, {"coco": 7})
    assert recipe.train is not None
    assert recipe.train.settings == {"steps": 3}
    assert load(path, ["caption=null"]).caption is None


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("caption.engin=template", "caption.engin.*did you mean engine"),
        ("sorces={}", "sorces.*did you mean sources"),
        ("refine.max_atempts=1", "max_atempts.*did you mean max_attempts"),
        ("sources.coco.anotations=x", "sources.coco has no setting 'anotations'; did you mean annotations"),
        ("sources.coco.format=cocoo", "no format 'cocoo'.*coco"),
        ("caption.engine=templat", "no engine 'templat'.*template"),
        ("caption.engines.template.colour=yes", "did you mean colours"),
        ("caption.chunk_images=0", "chunk_images.*greater than or equal to 1"),
        ("caption.task=images", "task"),
        ("refine.rules.lenght={}", "no rule 'lenght'.*length"),
        ("export.0.format=odgv", "no format 'odgv'.*odvg"),
        ("export.7.format=odvg", "'7' must be a position in a list of 2"),
        ("export.0.form=vq", "form"),
        ("ingest.part_row=1", "did you mean part_rows"),
        ("merge.cap=1", "did you mean caps"),
        ("max_faults=2", "max_faults.*less than or equal to 1"),
        ("name.first=x", "name holds a plain value"),
        ("train.name=../x", r"train.name must be a name without slashes .*; got '../x'"),
        ("export.0.out=a/b", "export.out must be a name without slashes"),
        ("export.1.out=odvg", "export has two entries called 'odvg'; tell them apart with out"),
        (
            "evaluate=[{annotations: a, images: b}, {annotations: c, images: b}]",
            "evaluate has two entries called 'coco'",
        ),
        ("sources={.x: {format: coco, annotations: a, images: b}}", "source must be a name .*; got '.x'"),
        ("just words", "--set needs key.key=value"),
        ("max_faults={", "cannot be read as a YAML value"),
    ],
)
def test_a_mistake_fails_at_once_in_one_line(path: str, override: str, says: str) -> None:
    with pytest.raises(SettingError, match=says) as raised:
        load(path, [override])
    assert "\n" not in str(raised.value)


def test_rules_are_put_behind_the_default_chain(path: str) -> None:
    also = "refine={also: {links: {}, counts: {action: drop}}}"
    rules = load(path, [also]).refine.settings().rules
    assert rules == (*DEFAULT_CHAIN, LinkPhrases(), CheckCounts(action="drop"))
    with pytest.raises(SettingError, match=r"refine\.also: no rule 'link'; there are: .*links"):
        load(path, ["refine={also: {link: {}}}"])


def test_a_typo_inside_a_setting_fails_too() -> None:
    with pytest.raises(SettingError, match=r"sampling\.temprature: Unexpected"):
        engine_of("vllm", {"model": "owner/name", "sampling": {"temprature": 1}})


def test_rules_in_an_order_that_cannot_work_fail_at_once(path: str) -> None:
    with pytest.raises(SettingError, match="must come after"):
        load(path, ["refine.rules={length: {}, debris: {}, speculation: {}}"])


@pytest.mark.parametrize(
    "content", ["sources: [", "- a\n- b\n", "just text", "\x00", "sources: !!python/object:os.x {}"]
)
def test_what_is_no_recipe_is_said_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(LlmdetError) as raised:
        load(str(tmp_path / "bad.yaml"))
    assert "\n" not in str(raised.value)
    assert isinstance(raised.value, FormatError | SettingError)


def test_a_missing_recipe_lists_the_bundled_ones(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=f"bundled ones: {', '.join(BUNDLED)}"):
        load(str(tmp_path / "nothing.yaml"))


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_recipes_load_by_name_and_hold_no_absolute_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = ["caption.engine=template"]  # the one that is always there
    recipe = load(name, engine)
    assert recipe == load(f"workflows/{name}.yaml", engine) == load(str(workflows() / f"{name}.yaml"), engine)
    text = (workflows() / f"{name}.yaml").read_text()
    assert not [word for word in text.split() if word.startswith(("/", "~", "file:"))]


def test_what_may_hold_a_key_is_not_in_the_record_of_a_run() -> None:
    engines = {"vllm": {"preset": "7b", "environment": {"HF_TOKEN": "hf_secret"}}}
    section = CaptionSection(engine="vllm", engines=engines)
    assert section.model_dump(mode="json")["engines"] == {"vllm": {"preset": "7b"}}
    assert section.model_dump()["engines"] == engines
    assert section.build_engine().environment == {"HF_TOKEN": "hf_secret"}  # type: ignore[attr-defined]

"""ground: noun phrases of captions get the boxes that a detector finds for them, as `grounded/<source>/`.

The unit of work is a run of records; its boxes are committed as one part, so that a run that was killed repeats at most
what was in flight. Workers are actors that keep the detector. Inside a unit, prompts of one length on pictures of one
size make a batch; records stay in the order of the source.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from llmdet import files, pseudo, validate
from llmdet.errors import ImageError, SettingError
from llmdet.phrases import Parser, resolve_parser
from llmdet.pseudo import Find, Thing
from llmdet.record import Record, to_batch
from llmdet.rejects import Kind, Reject
from llmdet.sources.conversations import own_caption
from llmdet.tagging import NLTK_DATA, tagger
from llmdet.workspace import Manifest, Table, Workspace, fingerprint
from pipelines.answers import Said, latest
from pipelines.chunks import read_run
from pipelines.cluster import cluster, workers
from pipelines.finding import Finder, GroundSettings
from pipelines.lease import hold
from pipelines.parts import Outcome, PartOutput, Progress, Row, StageTables, Workers, outcome_of, run_parts
from pipelines.said import image_texts

__all__ = ["GroundSettings", "ground", "model_key"]


def ground(
    workspace: Workspace,
    source: str,
    checkpoint: str,
    settings: GroundSettings | None = None,
    *,
    gpu: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Write `grounded/<source>/` from `records/<source>/`: boxes of `checkpoint`, a folder or hub id.

    Raises MissingError when the source was not ingested, nothing was said of its images (caption: lmm), or there is no
    such model; SettingError for settings that make no sense, or a GPU that is not there.
    """
    started = time.monotonic()
    settings = _resolved(settings or GroundSettings())
    records = workspace.records(source)
    manifest = records.require(f"run: llmdet-data ingest --source {source}")
    said = _said(workspace, source) if settings.caption == "lmm" else None
    inputs = {"records": manifest.fingerprint, "model": model_key(checkpoint)}
    inputs |= {"image": fingerprint([said.ledger.url, said.names])} if said else {}
    tables = StageTables(
        "ground",
        workspace.grounded(source),
        workspace.rejects("ground", source),
        fingerprint({"inputs": inputs, "settings": asdict(settings)}),
    )
    if done := tables.done():
        return outcome_of(done.counts, done.counts["seconds"], skipped=True)
    images = str(manifest.info.get("images", ""))
    reads = [place for place in (images, checkpoint) if place and files.exists(place)]
    with hold(tables.table.url) as held, cluster(workspace.url, reads=reads):
        pool = Workers(num_gpus=1, items=2) if gpu else Workers(count=workers(), items=1)
        finder = Finder(checkpoint, "cuda" if gpu else "cpu", images, settings)
        work = _Ground(tables, records, finder, settings, said)
        rows = run_parts([*_items(manifest, settings.part_rows)], work, progress=progress, pool=pool)
        held.check()
        shown = {**asdict(settings), "checkpoint": checkpoint}
        return tables.commit(rows, started=started, settings=shown, inputs=inputs, info=manifest.info)


def model_key(checkpoint: str) -> str:
    """What a detector is: a hash of its files, wherever the folder lies; a hub id as it is."""
    if not os.path.isdir(checkpoint):
        return checkpoint
    from detector.checkpoint import find

    folder = find(checkpoint)
    kept = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors", ".txt")]
    own = ("inputs.json", "result.json", "thresholds.json")  # of the training run, of predict; not of the model
    return fingerprint([[path.name, files.sha256(path.read_bytes())] for path in kept if path.name not in own])


def _resolved(settings: GroundSettings) -> GroundSettings:
    """Settings with what depends on the machine chosen, once, by the driver. Raises SettingError, MissingError."""
    settings.check()
    needs = (*NLTK_DATA, "stopwords") if settings.grammar == "subject" else NLTK_DATA
    return replace(settings, parser=resolve_parser(settings.parser, needs))


def _said(workspace: Workspace, source: str) -> Said:
    said = latest(workspace, source).get("image")
    if said is None:
        raise SettingError(
            f"ground with caption: lmm, but no engine has described the images of {source}; "
            f"run: llmdet-data caption --source {source} --task image"
        )
    return said


def _items(manifest: Manifest, part_rows: int) -> Iterator[Row]:
    """Runs of rows of one part of the records, in order."""
    index = 0
    for part in manifest.parts:
        for start in range(0, max(part.rows, 1), part_rows):
            count = min(part_rows, part.rows - start)
            yield {"index": index, "run": {"part": part.name, "slice": [start, count]}}
            index += 1


@dataclass(frozen=True, slots=True)
class _Text:
    """What is grounded of a record."""

    text: str
    things: list[Thing]


@dataclass(frozen=True)
class _Ground:
    """The work on one run of records: parse, ask the detector, settle, write."""

    tables: StageTables
    records: Table
    finder: Finder
    settings: GroundSettings
    said: Said | None = None

    def __call__(self, item: Row) -> Row:
        return self.tables.adopt(item["index"]) or self.tables.write(item["index"], self._output(item))

    def _output(self, item: Row) -> PartOutput:
        records = read_run(self.records, item["run"])
        todo = [not (self.settings.boxed == "keep" and any(region.boxes for region in one.regions)) for one in records]
        wanted = [record for record, needed in zip(records, todo, strict=True) if needed]
        made = iter(self._grounded(wanted))
        kept: list[Record] = []
        left_out: list[Reject] = []
        for record, needed in zip(records, todo, strict=True):
            if not needed:
                kept.append(record)
                continue
            result, lost = next(made)
            left_out += lost
            if result is not None:
                kept.append(result)
        return PartOutput(to_batch(kept), left_out)

    def _grounded(self, records: list[Record]) -> Iterator[tuple[Record | None, list[Reject]]]:
        """Each record with its boxes, or None and why."""
        texts = self._texts(records)
        asked = [(number, one) for number, one in enumerate(texts) if isinstance(one, _Text)]
        found = self.finder.find([(records[number], one.text, one.things) for number, one in asked])
        answers = {number: one for (number, _), one in zip(asked, found, strict=True)}
        for number, (record, text) in enumerate(zip(records, texts, strict=True)):
            if isinstance(text, Reject):
                yield None, [text]
            elif isinstance(answer := answers[number], ImageError):
                yield None, [_reject(record, answer.reason, answer.detail, "fault")]
            else:
                yield self._settled(record, text, answer)

    # --- texts -----------------------------------------------------------------------------------------------------

    def _texts(self, records: list[Record]) -> list[_Text | Reject]:
        """The text of each record with what it names, or why there is none."""
        said = image_texts(records, self.said) if self.said else [_own_text(record) for record in records]
        assert self.settings.parser != "auto"  # the driver has chosen
        parser = Parser(self.settings.parser)
        tagger(self.settings.parser)  # a worker that lacks the parser's data must not go on without
        found: list[_Text | Reject] = []
        skip = pseudo.NO_THINGS | set(self.settings.skip)
        for record, text in zip(records, said, strict=True):
            if text is None:
                found.append(_reject(record, "no_caption", "nothing to look for"))
                continue
            things = pseudo.things_in(text, parser, self.settings.grammar, skip)
            found.append(_Text(text, things) if things else _reject(record, "no_phrase", "the caption names nothing"))
        return found

    # --- records ---------------------------------------------------------------------------------------------------

    def _settled(self, record: Record, text: _Text, finds: list[Find]) -> tuple[Record | None, list[Reject]]:
        """The record with the boxes that stay, or None where these are too few."""
        kept, lost = pseudo.settle(finds, self.settings.conflict_iou)
        left_out = [
            Reject(
                f"{record.id}#{text.things[find.thing].name}", "annotation", "policy", "ground", "box_conflict",
                f"score {find.score:g}, {text.things[rival.thing].name} has {rival.score:g}",
            )
            for find, rival in lost
        ]  # fmt: skip
        if len(kept) < self.settings.min_boxes:
            why = f"{len(kept)} boxes, {self.settings.min_boxes} needed"
            return None, [*left_out, _reject(record, "too_few_boxes", why)]
        made = self._record(record, text, kept)
        if faults := validate.faults(made):
            return None, [*left_out, _reject(record, faults[0].split(":")[0], faults[0], "fault")]
        return made, left_out

    def _record(self, record: Record, text: _Text, finds: list[Find]) -> Record:
        if self.settings.text == "caption":
            return pseudo.grounded(record, text.text, text.things, finds)
        boxed = sorted({find.thing for find in finds})
        words, things = pseudo.joined_names([text.things[number] for number in boxed])
        finds = [replace(find, thing=boxed.index(find.thing)) for find in finds]
        if self.said is None and all(caption.text != text.text for caption in record.captions):
            record = replace(record, captions=(own_caption(text.text), *record.captions))  # else it would be lost
        return pseudo.grounded(record, words, things, finds)


def _own_text(record: Record) -> str | None:
    """The text of a source of sentences, or the first caption that the source itself has."""
    if record.kind == "grounding" and record.text.strip():
        return record.text
    own = (one.text for one in record.captions if one.provenance.origin == "source" and one.text.strip())
    return next(own, None)


def _reject(record: Record, reason: str, detail: str, kind: Kind = "policy") -> Reject:
    return Reject(record.id, "record", kind, "ground", reason, detail)

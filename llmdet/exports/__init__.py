"""Exporters: Records to the formats that detectors and tools read."""

from llmdet.exports.exporter import Exported, Exporter
from llmdet.exports.groundingcap import GroundingCap
from llmdet.exports.odvg import Odvg
from llmdet.exports.parquet import Parquet

__all__ = ["EXPORTERS", "Exported", "Exporter"]

EXPORTERS: dict[str, type[Exporter]] = {"odvg": Odvg, "groundingcap": GroundingCap, "parquet": Parquet}

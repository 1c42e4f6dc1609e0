"""A judge and a drafter with stated biases, to be served as a model: known truth for every estimate."""

from judgeloop.planted.answerer import PlantedAnswer, PlantedAnswerer
from judgeloop.planted.spec import DraftSpec, PlantedSpec, load, schema

__all__ = ["DraftSpec", "PlantedAnswer", "PlantedAnswerer", "PlantedSpec", "load", "schema"]

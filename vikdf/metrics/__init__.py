"""The metrics of Table 1. Answers in, {name: (value, signature)} out; the imports below are the order of the columns.

from vikdf.metrics import Answers, score
score(Answers(["i am fine."], [["i am good."]]))["bleu1"].value
"""

from vikdf.metrics import perplexity, bleu, rouge, embedding, distinct  # noqa: F401, I001 - each puts itself into METRICS
from vikdf.metrics.registry import METRICS, Answers, Metric, Score, metric, score

__all__ = ["METRICS", "Answers", "Metric", "Score", "metric", "score"]

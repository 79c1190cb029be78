"""The metrics of Table 1 and what stands beside them. Answers in, {name: (value, signature)} out.

from vikdf.metrics import Answers, score
score(Answers(["i am fine."], [["i am good."]]))["bleu1"].value

The imports below are the order of the scores; each file puts its functions into METRICS.
"""

from vikdf.metrics import perplexity, bleu, rouge, embedding, distinct, ead, beside, similarity  # noqa: F401, I001
from vikdf.metrics.registry import METRICS, Answers, Metric, Score, metric, score

__all__ = ["METRICS", "Answers", "Metric", "Score", "metric", "score"]

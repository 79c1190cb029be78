"""Ours and a plain reference in one run: `python -m benchmarks.<name>`; its last line gives the ratio."""

import vikdf  # noqa: F401 - before torch: it fixes one thread a job, as in training; a second one's waiting would be counted

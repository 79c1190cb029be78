"""Ours and a plain reference in one run: `python -m benchmarks.<name>`; its last line gives the ratio."""

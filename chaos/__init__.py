"""A campaign of faults on a whole run: each is struck, one command brings the run to its end, and the bytes are compared.

Run: python -m chaos --faults 60 --seed 1       (`make chaos`; docs/reliability.md holds the table of the last one)
"""

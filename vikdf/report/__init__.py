"""The report: one page of everything that a run found, which opens from a file, without a network.

In: the tables of a run, its figures, its answers. Out: report.html. Run: `python -m vikdf.report` (the rule `report`).
Each section is a module: rows in, plain values for the page out. page.html lays them out, script.js lets a reader choose.
"""

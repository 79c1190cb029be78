"""The run's figures as SVG, drawn from its tables: one module a figure, each with `draw(rows, path, ...)`.

In: rows of the tables of results/. Out: one SVG each, always the same bytes for the same rows.
Run: python -m vikdf.figures (the rule `figures`); `style` holds what they share.
"""

"""How sure are the scores? Intervals and tests from per-example counts.

    corpus.py       EXAMPLES tables of systems and seeds -> counts an example, and every metric from sums of them
    draws.py        random draws in blocks of bounded memory
    intervals.py    bootstrap over examples (nouns in the probe), subsampling for Dis-n
    permutation.py  paired permutation tests between any two rows, Holm's correction
    seeds.py        t-intervals over seeds, and the paper's one-sample t-test
    notes.py        what stands below a table that shows any of these

Everything is conditional on the trained models: an example is drawn anew, a seed is not. Only the t-intervals over seeds
speak of training again. Of one seed there are none.
"""

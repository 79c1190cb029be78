"""One system per file, each with the two functions that vikdf.systems names: learner and answerer."""

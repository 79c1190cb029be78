"""One tree and what befalls it: a run at a drawn moment, or one that stands, with the chance that decides both.

Used by chaos/faults.py and chaos/network.py.
"""

import random
import signal
from dataclasses import dataclass, field
from pathlib import Path

from chaos import trees

CUTS = {  # how often a run is cut back to which stage: one before `pretrain` costs minutes, since all that follows starts again
    **{"sources": 1, "filter": 1, "caption": 1, "shards": 1, "dialogues": 1, "backbones": 1},
    **{"pretrain": 4, "finetune": 7, "generate": 6, "evaluate": 4, "tables": 2},
}
CHEAP = {name: CUTS[name] for name in ("pretrain", "finetune", "generate", "evaluate", "tables")}
AGAIN = 0.75  # of the cuts take the kept work too: the stage then does it again, else it copies it out of state/
TRIES = 4  # a moment that comes too late is drawn again


class Missed(Exception):
    """The run ended before the fault could strike, or there is nothing that it could harm."""


@dataclass
class Trial:
    """One tree and what befalls it."""

    tree: trees.Tree
    draw: random.Random
    within: float  # seconds after a job's end in which a moment is drawn
    chained: int = 0  # faults that are still to come in this tree; 0: the tree is cut back for each
    harms: dict[Path, str | None] = field(default_factory=dict)  # file -> its sha256 after the harm; None: deleted
    by_command: bool = False  # the plain command did not go on by itself

    def moving(self, stages: dict[str, int] | None = None) -> trees.Command:
        """A run at a drawn moment. In a chain it is what the fault before has left; else it is cut back for it."""
        for _ in range(TRIES):
            if not self.chained or not self.tree.unequal():
                self.cut(stages or CUTS)
            share = self.draw.random() * (2 / (self.chained + 1) if self.chained else 0.95)
            for words in (trees.snakemake, trees.recover):
                command = self.tree.start(words(self.tree.cores))
                if command.reaches(min(share, 0.95), self.draw.uniform(0, self.within)):
                    return command
                if command.wait() == 0:  # it was done before the moment came
                    self.ended_well()
                    break
                if not self.chained or words is trees.recover:
                    raise trees.Lost(f"`{' '.join(command.words)}` failed before the fault came")
                self.by_command = True
        raise Missed

    def ended_well(self) -> None:
        """A run without an error has the bytes of the undisturbed one, but for files that were harmed and not read."""
        harmed = {path.relative_to(self.tree.folder).as_posix() for path in self.harms}
        if unseen := sorted({*self.tree.unequal()} - harmed):
            raise trees.Lost(f"the run ended well with other bytes in {', '.join(unseen[:5])}")

    def still(self) -> None:
        """A run that stands: stopped at a drawn moment in a chain, else as it is."""
        if self.chained:
            command = self.moving()
            command.signal(signal.SIGTERM)
            command.gone()

    def cut(self, stages: dict[str, int]) -> str:
        stage = self.draw.choices(list(stages), list(stages.values()))[0]
        return self.tree.cut(stage, "", self.draw, again=self.draw.random() < AGAIN)

"""Fixtures that several test files share: tiny random backbones, written once a session."""

import os

import pytest

import vikdf  # noqa: F401 - before torch: it fixes threads and the instruction set
from vikdf import endpoints

for name in (endpoints.KEY, *endpoints.PLACES.values()):
    os.environ.pop(name, None)  # no test asks, or pays, whoever the environment names


@pytest.fixture(scope="session")
def backbones(tmp_path_factory):
    """Folders by name: clip, bert, llm."""
    import checkpoints

    root = tmp_path_factory.mktemp("backbones")
    return {
        "clip": checkpoints.write_clip(root / "clip"),
        "bert": checkpoints.write_bert(root / "bert"),
        "llm": checkpoints.write_llm(root / "llm"),
    }

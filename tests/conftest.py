"""Fixtures that several test files share: tiny random backbones, written once a session."""

import pytest

import vikdf  # noqa: F401 - before torch: it fixes threads and the instruction set


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

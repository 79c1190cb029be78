"""Fixtures that several test files share: tiny random backbones and a tracking store, written once a session."""

import os
import shutil

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


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory):
    """A store as MLflow makes it, made once: its tables cost seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("fresh") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def place(tmp_path, monkeypatch, fresh_store):
    """A folder to work in, with a store that has no run yet."""
    shutil.copyfile(fresh_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "params.yaml").write_text("seeds: [1]\n")
    return tmp_path

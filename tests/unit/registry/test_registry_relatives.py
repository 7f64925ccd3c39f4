"""The catalogue's entries by id and hub, and the family tree over catalogue and project."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.kernel import database
from core.kernel.actor import Actor
from core.kernel.errors import NotFound
from core.registry import catalogue, relatives
from core.registry import services as registry
from core.registry.models import Model


def test_an_entry_is_plain_and_a_wrong_id_names_the_nearest() -> None:
    entry = catalogue.entry("Qwen/Qwen3-8B")
    assert (entry["id"], entry["parameters"], entry["modalities_in"]) == (
        "qwen/qwen3-8b",
        8_000_000_000,
        ["text"],
    )
    assert entry["active_parameters"] is None
    assert catalogue.id_on_hub("qwen/qwen3-8b") == "qwen/qwen3-8b"
    assert catalogue.id_of_name("Qwen3-8B") == "qwen/qwen3-8b"
    assert catalogue.id_of_name("no such name") is None
    assert set(catalogue.prices_of("qwen/qwen3-8b")["model_id"]) == {"qwen/qwen3-8b"}
    with pytest.raises(NotFound, match="qwen/qwen3-8b"):
        catalogue.entry("qwen/qwen3-8bb")


def test_a_search_among_some_counts_only_those() -> None:
    some = {"qwen/qwen3-8b", "qwen/qwen3-14b"}
    found = catalogue.index().search("qwen3", among=some)
    assert set(found.models["id"]) == some
    assert sum(found.facets["size"].values()) == 2
    assert catalogue.index().search("qwen3", among=()).total == 0


def test_a_fine_tune_of_the_project_stands_under_its_base(data_dir: Path, admin: Actor) -> None:
    starter = registry.add_starter(admin)
    with database.transaction() as tx:
        row = tx.get(Model, starter.id)
        assert row is not None
        row.extracted = {
            "base_models": ["Qwen/Qwen3-8B", "someone/else"],
            "base_model_relation": "finetune",
        }
    node = relatives.node_id(registry.get_model(admin, starter.id))
    family = relatives.family_of(admin, "prj_default", node)
    assert family.ancestors == ("qwen/qwen3-8b", "qwen/qwen3-8b-base")
    assert family.other_bases == ("someone/else",)
    assert family.root.id == "qwen/qwen3-8b-base"
    (tuned,) = (child for child in family.root.children if child.id == "qwen/qwen3-8b")
    kinds = {child.id: child.relation for child in tuned.children}
    assert kinds == {node: "finetune", "qwen/qwen3-8b-fp8": "quantized"}

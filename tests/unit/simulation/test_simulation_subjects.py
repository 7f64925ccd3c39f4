"""What a person may simulate: shipped, of their registry, their hardware, this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.accounts import services as accounts
from core.hardware import services as hardware
from core.hardware.schemas import NewAccelerator
from core.kernel import clock, database, ids, machine
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import InvalidInput, NotFound
from core.projects import services as projects
from core.registry import services as registry
from core.registry.models import Model
from core.simulation import architectures, dataset, subjects
from core.simulation.scenarios import from_columns


@pytest.fixture
def person(data_dir: Path, admin: Actor, quick_passwords: None) -> Actor:
    """An admin with a project, on a machine whose rates were measured before."""
    accounts.bootstrap("admin@example.org", Secret("correct-horse-battery"))
    projects.bootstrap()
    measured = {
        "cpu_model": machine.cpu_model(),
        "cores": machine.cores(machine.cgroup_limits()),
        "rates": {
            "memory_bandwidth_gb_per_s": 20.0,
            "matmul_float32_tflops": 0.1,
            "weight_products": None,
        },
        "measured_at": clock.now().isoformat(),
    }
    (data_dir / "hardware_probe.json").write_text(json.dumps(measured))
    return admin


def test_what_ships_comes_first_and_in_the_order_of_the_data(person: Actor) -> None:
    registry.add_starter(person)
    models, systems = dataset.tables()
    found = subjects.for_actor(person)
    assert found.models.architectures[: len(models.architectures)] == models.architectures
    assert found.systems.accelerators[: len(systems.accelerators)] == systems.accelerators
    assert len(found.models.architectures) == len(models.architectures) + 1
    assert subjects.shipped().models.ids == models.ids


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("zhipuai/GLM-5", "glm-5"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("DeepSeek-R1-0528", "deepseek-v3"),
        ("/mnt/lustre01/models/deepseek-r1-0528-fp4-v2", "deepseek-v3"),
    ],
)
def test_a_model_is_found_by_any_name(name: str, id_: str) -> None:
    found = subjects.shipped()
    assert found.models.architectures[found.find_model(name)].id == id_


@pytest.mark.parametrize(
    ("name", "id_"),
    [("h100_sxm", "h100_sxm"), ("b200-trt", "b200_sxm"), ("mi355x-amd_0", "mi355x")],
)
def test_a_system_is_found_by_any_name(name: str, id_: str) -> None:
    found = subjects.shipped()
    assert found.systems.accelerators[found.find_system(name)].id == id_


def test_unknown_names_are_refused_with_the_three_nearest() -> None:
    with pytest.raises(NotFound) as model_error:
        subjects.shipped().find_model("Qwen/Qwen3-33B")
    assert "'Qwen/Qwen3-33B'" in model_error.value.what
    assert "qwen3-32b" in model_error.value.remedy
    assert model_error.value.remedy.split(". ")[0].count(",") == 2
    with pytest.raises(NotFound, match="h100") as system_error:
        subjects.shipped().find_system("h101_sxm")
    assert "h101_sxm" in system_error.value.what


def test_a_device_of_which_only_the_memory_is_known_says_so() -> None:
    with pytest.raises(InvalidInput, match="only its memory is known"):
        subjects.shipped().find_system("rtx_4070")
    entry = next(each for each in subjects.shipped().system_subjects if each.id == "rtx_4070")
    assert (entry.index, entry.why_not) == (None, "only its memory is known")


def test_the_starter_model_is_simulated_on_this_machine(person: Actor) -> None:
    starter = registry.add_starter(person)
    found = subjects.for_actor(person)
    index = found.find_model(starter.name)
    assert found.find_model(starter.id) == index
    shape = found.models.architectures[index]
    assert (shape.id, shape.native_precision) == (starter.id, "q4_1")
    assert shape.total_params == pytest.approx(starter.parameters, rel=0.01)
    rows = from_columns({
        "model": index, "system": found.find_system("this-machine"), "engine": 3,
        "isl": 128.0, "osl": 64.0, "concurrency": 1.0,
    })  # fmt: skip
    prediction = found.predictor.predict(rows)
    assert prediction.fits[0]
    assert 0 < prediction.tpot_ms.mean[0] < 10_000


def test_it_is_kept_until_something_changes(person: Actor) -> None:
    first = subjects.for_actor(person)
    assert subjects.for_actor(person) is first
    new = NewAccelerator("Rented H100", "hopper", 80.0, 3350.0, 989.0)
    hardware.add(person, new)
    second = subjects.for_actor(person)
    assert second.systems.accelerators[second.find_system("rented h100")].memory_gb == 80.0
    with pytest.raises(NotFound):
        first.find_system("rented h100")
    hardware.remove(person, "rented_h100")
    assert subjects.for_actor(person) is first


def test_a_model_that_cannot_be_read_says_why(person: Actor, tmp_path: Path) -> None:
    with database.transaction() as tx:
        for name, state, path in (("waits", "adding", None), ("gone", "ready", "/no/such.gguf")):
            tx.add(
                Model(
                    id=ids.new_id("mod"),
                    tenant_id=person.tenant_id,
                    project_id=None,
                    name=name,
                    state=state,
                    source="test",
                    path=path,
                    created_at=clock.now(),
                )
            )
    found = subjects.for_actor(person)
    with pytest.raises(InvalidInput, match="waits cannot be simulated: its files are not there"):
        found.find_model("waits")
    with pytest.raises(InvalidInput, match=r"There is no file /no/such\.gguf"):
        found.find_model("gone")


def test_others_see_nothing_of_a_private_registry(person: Actor) -> None:
    registry.add_starter(person)
    stranger = Actor("usr_x", "stranger", "ten_other")
    names = {each.name for each in subjects.for_actor(stranger).model_subjects}
    assert registry.STARTER_NAME not in names


def test_a_further_model_is_appended() -> None:
    extra = architectures.from_config(
        {
            "model_type": "llama",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "vocab_size": 1000,
        },
        "tiny",
    )
    base = subjects.shipped()
    found = base.with_model(extra, "tiny")
    assert found.find_model("tiny") == len(base.models.architectures)
    assert "tiny" not in base.models.ids

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from core.clusters import services as clusters
from core.kernel import machine
from core.kernel.actor import Actor
from core.kernel.errors import NotFound, PermissionDenied
from core.kernel.machine import Limits


def _write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content + "\n")


def test_the_tightest_limit_of_version_2_counts(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/slice/job\n")
    _write(root, cgroup__controllers="cpu memory")
    _write(root / "slice", cpu__max="150000 100000", memory__max="4000", memory__current="3000")
    stat = "anon 1\ninactive_file 400"
    _write(root / "slice" / "job", cpu__max="max 100000", memory__max="max", memory__stat=stat)
    (root / "slice" / "memory.stat").write_text(stat)
    assert machine.cgroup_limits(root, own) == Limits(1.5, 4000, 2600)


def test_version_1_limits_are_read_and_no_limit_is_none(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("4:memory:/job\n3:cpu,cpuacct:/job\n")
    _write(root / "memory" / "job", memory__limit_in_bytes="5000", memory__usage_in_bytes="1000")
    _write(root / "memory", memory__limit_in_bytes=str(1 << 62))
    _write(root / "cpu" / "job", cpu__cfs_quota_us="50000", cpu__cfs_period_us="100000")
    _write(root / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert machine.cgroup_limits(root, own) == Limits(0.5, 5000, 1000)


def test_the_path_of_the_host_does_not_lead_out_of_the_container(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/../../somewhere/else\n")
    _write(root, cgroup__controllers="", memory__max="7000", memory__current="1")
    assert machine.cgroup_limits(root, own) == Limits(None, 7000, 1)


def test_half_a_core_is_one_core_and_a_limit_above_the_machine_is_none() -> None:
    assert machine.cores(Limits(cpus=0.5)) == 1
    assert machine.physical_cores(Limits(cpus=0.5)) == 1
    assert machine.cores(Limits(cpus=10_000)) == machine.cores(Limits())
    total, available = machine.memory_bytes(Limits(None, 1 << 60, 0))
    assert total == psutil.virtual_memory().total
    assert 0 < available <= total


def test_memory_is_what_the_container_has_left() -> None:
    assert machine.memory_bytes(Limits(None, 1000, 400)) == (1000, 600)
    assert machine.memory_bytes(Limits(None, 1000, 1400)) == (1000, 0)


def test_this_machine_is_a_cluster_with_real_numbers(data_dir: Path, admin: Actor) -> None:
    (cluster,) = clusters.list_clusters(admin)
    assert cluster == clusters.get_cluster(admin, "this-machine").model_copy(
        update={"machine": cluster.machine}
    )
    here = cluster.machine
    assert 1 <= here.physical_cores <= here.cores
    assert 0 < here.memory_available_bytes <= here.memory_total_bytes
    assert 0 < here.disk_free_bytes <= here.disk_total_bytes
    assert here.cpu_model
    assert here.os
    with pytest.raises(NotFound):
        clusters.get_cluster(admin, "elsewhere")


def test_whoever_is_in_no_project_sees_no_cluster(data_dir: Path) -> None:
    nobody = Actor("usr_n", "n@example.org", "ten_default")
    with pytest.raises(PermissionDenied):
        clusters.list_clusters(nobody)
    assert clusters.list_clusters(Actor("usr_m", "m", "ten_default", "member", {"p": "member"}))

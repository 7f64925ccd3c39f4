"""Workloads to start from are possible, told apart and explained."""

from __future__ import annotations

import pytest

from core.kernel.errors import NotFound
from core.simulation import questions, workloads
from core.simulation.schemas import WhatIf
from core.simulation.workloads import WORKLOADS


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda each: each.id)
def test_each_can_be_asked_for_and_says_where_its_numbers_come_from(
    workload: workloads.Workload,
) -> None:
    questions.check(
        WhatIf(
            isl=workload.isl,
            osl=workload.osl,
            concurrency=workload.concurrency,
            prefix_hit_share=workload.prefix_hit_share,
        )
    )
    assert any(word in workload.why for word in ("trace", "InferenceX", "assumption"))
    assert workloads.find(workload.id) is workload


def test_no_two_are_the_same() -> None:
    loads = {(each.isl, each.osl, each.prefix_hit_share) for each in WORKLOADS}
    assert len(loads) == len({each.id for each in WORKLOADS}) == len(WORKLOADS)


def test_an_unknown_one_is_refused_with_the_nearest() -> None:
    with pytest.raises(NotFound, match="summarising"):
        workloads.find("summarizing")

"""Choosing a model by quality: the leaderboards' word on what fits the hardware."""

from __future__ import annotations

from pathlib import Path

from core.kernel.actor import Actor
from core.simulation import services
from core.simulation.schemas import Targets, WhatIf

PROJECT = "prj_default"


def test_candidates_carry_the_quality_of_a_task(data_dir: Path, admin: Actor) -> None:
    found = services.choose_model(admin, PROJECT, WhatIf(gpus=8), Targets(), task="chat")
    known = {each.model_name: each.quality for each in found if each.quality is not None}
    assert len(known) > 20
    assert known["llama-3.1-70b"].score > known["llama-3.1-8b"].score
    assert all(each.low < each.score < each.high for each in known.values())
    plain = services.choose_model(admin, PROJECT, WhatIf(gpus=8), Targets())
    assert [each.model for each in plain] == [each.model for each in found]
    assert all(each.quality is None for each in plain)

"""A replay that goes one engine step at a time: slow, plain, and an oracle for the fast one.

It shares the definitions of the work and of a step's time, and no logic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from core.simulation.replay_engine import Engine, Scaling, Work


@dataclass
class Sequence:
    request: int
    to_read: int
    context: int
    to_generate: int


@dataclass
class Copy:
    ready_s: float
    launched_s: float
    waiting: list[int] = field(default_factory=list)
    running: list[Sequence] = field(default_factory=list)
    # When the step that runs ends; None when none runs.
    step_ends_s: float | None = None
    # Tokens of each prompt that are read in it, and whether it also decodes.
    reading: list[tuple[Sequence, int]] = field(default_factory=list)
    decoding: list[Sequence] = field(default_factory=list)
    draining: bool = False
    # Of a disaggregated copy: prompts in prefill and on their way to decode, and when they get
    # there; when the prefill workers have begun the last prompt and taken it off their hands.
    on_the_way: list[tuple[float, int]] = field(default_factory=list)
    prefill_free_s: float = 0.0
    ended_s: float = math.inf

    @property
    def in_flight(self) -> int:
        return len(self.waiting) + len(self.running) + len(self.on_the_way)


class Stepwise:
    def __init__(self, work: Work, engine: Engine, scaling: Scaling) -> None:
        self.work, self.engine, self.scaling = work, engine, scaling
        self.admitted_s = [math.nan] * len(work)
        self.first_token_s = [math.nan] * len(work)
        self.finished_s = [math.nan] * len(work)
        self.copies = [Copy(0.0, 0.0) for _ in range(scaling.min_replicas)]
        self.wanted: list[tuple[float, int]] = []

    def run(self) -> Stepwise:
        arrived, left = 0, len(self.work)
        next_scaling_s = math.inf if self.scaling.is_fixed else self.scaling.interval_s
        while left:
            arrival_s = self.work.arrival_s[arrived] if arrived < len(self.work) else math.inf
            ends = [copy.step_ends_s for copy in self.copies if copy.step_ends_s is not None]
            ends += [ready_s for copy in self.copies for ready_s, _ in copy.on_the_way]
            now_s = min([arrival_s, next_scaling_s, *ends])
            if now_s == arrival_s:
                self.route(arrived, now_s)
                arrived += 1
                if arrived < len(self.work) and self.work.arrival_s[arrived] == now_s:
                    continue
            elif now_s == next_scaling_s:
                self.scale(now_s)
                next_scaling_s += self.scaling.interval_s
            for copy in self.copies:
                if copy.step_ends_s == now_s:
                    left -= self.end_step(copy, now_s)
            for copy in self.copies:
                there = sorted(each for each in copy.on_the_way if each[0] <= now_s)
                copy.waiting += [request for _, request in there]
                copy.on_the_way = [each for each in copy.on_the_way if each[0] > now_s]
                if copy.step_ends_s is None and (copy.waiting or copy.running):
                    self.begin_step(copy, now_s)
        return self

    def route(self, request: int, now_s: float) -> None:
        serving = [c for c in self.copies if c.ready_s <= now_s and not c.draining]
        copy = min(serving, key=lambda copy: copy.in_flight)
        if self.engine.is_disaggregated:
            self.prefill(copy, request, now_s)
        else:
            copy.waiting.append(request)

    def prefill(self, copy: Copy, request: int, now_s: float) -> None:
        work = self.work
        begun_s = max(now_s, copy.prefill_free_s)
        self.admitted_s[request] = begun_s
        busy_s = work.prefill_tokens[request] * work.prefill_s_per_token[request]
        copy.prefill_free_s = begun_s + busy_s
        copy.on_the_way.append((begun_s + work.hand_over_s[request], request))

    def join(self, copy: Copy) -> None:
        work = self.work
        while copy.waiting and self.has_room(copy):
            request = copy.waiting.pop(0)
            copy.running.append(
                Sequence(request, 0, work.input_tokens[request], work.output_tokens[request])
            )

    def begin_step(self, copy: Copy, now_s: float) -> None:
        work, engine = self.work, self.engine
        if engine.is_disaggregated:
            self.join(copy)
        unread = [sequence for sequence in copy.running if sequence.to_read]
        decoding = [sequence for sequence in copy.running if not sequence.to_read]
        copy.reading, copy.decoding = [], decoding
        budget = engine.max_batched_tokens - len(decoding)
        if not engine.chunked_prefill:
            budget = engine.max_batched_tokens
        for sequence in unread:
            taken = min(sequence.to_read, budget)
            budget -= taken
            copy.reading.append((sequence, taken))
        while copy.waiting and budget > 0 and self.has_room(copy) and not engine.is_disaggregated:
            request = copy.waiting[0]
            to_read = work.prefill_tokens[request]
            if to_read > budget and copy.reading and not engine.chunked_prefill:
                break
            copy.waiting.pop(0)
            self.admitted_s[request] = now_s
            sequence = Sequence(
                request, to_read, work.input_tokens[request], work.output_tokens[request]
            )
            copy.running.append(sequence)
            taken = min(to_read, budget) if engine.chunked_prefill else to_read
            budget -= taken
            copy.reading.append((sequence, taken))
        if copy.reading and not engine.chunked_prefill:
            copy.decoding = decoding = []
        step_s = sum(taken * work.prefill_s_per_token[s.request] for s, taken in copy.reading)
        if decoding:
            mean_context = sum(sequence.context for sequence in decoding) / len(decoding)
            step_s += engine.step_s[len(decoding)]
            step_s += engine.step_s_per_token[len(decoding)] * mean_context
        copy.step_ends_s = now_s + step_s

    def has_room(self, copy: Copy) -> bool:
        held = sum(self.work.kv_bytes[sequence.request] for sequence in copy.running)
        return (
            len(copy.running) < self.engine.max_sequences
            and held + self.work.kv_bytes[copy.waiting[0]] <= self.engine.kv_bytes
        )

    def end_step(self, copy: Copy, now_s: float) -> int:
        for sequence in copy.decoding:
            sequence.context += 1
            sequence.to_generate -= 1
            if math.isnan(self.first_token_s[sequence.request]):
                self.first_token_s[sequence.request] = now_s
        for sequence, taken in copy.reading:
            sequence.to_read -= taken
            if not sequence.to_read:
                self.first_token_s[sequence.request] = now_s
                sequence.context += 1
                sequence.to_generate -= 1
        done = [sequence for sequence in copy.running if not sequence.to_generate]
        for sequence in done:
            self.finished_s[sequence.request] = now_s
        copy.running = [sequence for sequence in copy.running if sequence.to_generate]
        copy.step_ends_s = None
        if copy.draining and not copy.in_flight:
            copy.ended_s = now_s
        return len(done)

    def scale(self, now_s: float) -> None:
        scaling = self.scaling
        in_flight = sum(copy.in_flight for copy in self.copies)
        wanted = math.ceil(in_flight / scaling.target_in_flight)
        wanted = max(scaling.min_replicas, min(scaling.max_replicas, wanted))
        self.wanted.append((now_s, wanted))
        recent = [w for at, w in self.wanted if at >= now_s - scaling.scale_down_delay_s]
        active = [copy for copy in self.copies if not copy.draining]
        for _ in range(wanted - len(active)):
            self.copies.append(Copy(now_s + scaling.start_up_s, now_s))
        starting = [copy for copy in active if copy.ready_s > now_s]
        serving = [copy for copy in active if copy.ready_s <= now_s]
        order = starting[::-1] + sorted(serving, key=lambda copy: copy.in_flight)
        for copy in order[: max(0, len(active) - max(recent))]:
            copy.draining = True
            if not copy.in_flight:
                copy.ended_s = now_s

    def replica_hours(self, until_s: float) -> float:
        return sum(min(c.ended_s, until_s) - c.launched_s for c in self.copies) / 3600

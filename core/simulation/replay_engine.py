"""Continuous batching over several replicas, from event to event instead of step by step.

Every sequence that decodes on a replica gets one token a step. So a replica keeps one counter of
its steps and a heap of the counts at which its sequences end, and a run of equal steps is one
closed form: a step takes an affine function of the mean context, which grows by one token a step.

Steps that read prompts are formed as an engine does it: decoding sequences take a token each, the
rest of `max_batched_tokens` goes to prompts in the order they came (or, without chunked prefill,
whole prompts come first and decoding waits). A request is admitted with the first token of its
prompt that is read, if there is memory for all its tokens. The result is that of a simulation
that goes step by step; only rounding differs.

Of a disaggregated replica the prefill workers together take one prompt after the other, and the
decode workers together run one batch, which prompts join without costing it time.

Times are in seconds in this file.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import cast

_HANDED_OVER, _READY, _TICK = -3, -2, -1
_REPORT_EVERY = 5_000


@dataclass(frozen=True)
class Work:
    """The requests, one entry each, in the order in which they arrive.

    `prefill_tokens` are what is left to read after prefix hits, `kv_bytes` what a request holds
    of `Engine.kv_bytes` from its admission to its end. `hand_over_s` is used of a disaggregated
    replica: from the beginning of a prompt's prefill until it can join the decode batch.
    """

    arrival_s: Sequence[float]
    input_tokens: Sequence[int]
    output_tokens: Sequence[int]
    prefill_tokens: Sequence[int]
    prefill_s_per_token: Sequence[float]
    kv_bytes: Sequence[int]
    hand_over_s: Sequence[float]

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True)
class Engine:
    """One replica: its limits, and what a decode step takes.

    A step of `b` sequences with a mean context of `n` tokens takes
    `step_s[b] + step_s_per_token[b] * n`, and each token of a prompt read in it comes on top.
    """

    step_s: list[float]
    step_s_per_token: list[float]
    max_sequences: int
    max_batched_tokens: int
    kv_bytes: int
    chunked_prefill: bool
    is_disaggregated: bool


@dataclass(frozen=True)
class Scaling:
    """How many replicas there are, and when that changes.

    Every `interval_s` the requests in flight are divided by `target_in_flight`. More replicas are
    started at once and serve `start_up_s` later; fewer only once the highest number wanted in the
    last `scale_down_delay_s` is lower (as Kubernetes' autoscaler does). A replica that is given up
    takes no more requests and ends with its last one.
    """

    min_replicas: int
    max_replicas: int
    target_in_flight: float
    interval_s: float
    start_up_s: float
    scale_down_delay_s: float

    @property
    def is_fixed(self) -> bool:
        """Whether the number of replicas never changes."""
        return self.min_replicas == self.max_replicas


@dataclass
class Lifetime:
    """When a replica was started, could serve, and ended, in seconds of the trace."""

    launched_s: float
    ready_s: float
    ended_s: float = math.inf


@dataclass(frozen=True)
class Log:
    """When each request was admitted to a batch, got its first token, and ended."""

    admitted_s: array[float]
    first_token_s: array[float]
    finished_s: array[float]
    lifetimes: list[Lifetime]


class _Replica:
    """One engine. A plan is a run of steps with the same batch; it ends at `ends_s`."""

    __slots__ = (
        *("_count", "_engine", "_kv_free", "_log", "_work"),
        *("begun_s", "context", "decoded", "decoding", "ends_s", "is_open", "partly_read"),
        *("read", "running", "steps", "unread_tokens", "version", "waiting"),
    )

    def __init__(self, work: Work, engine: Engine, log: Log) -> None:
        self._work, self._engine, self._log = work, engine, log
        self._count = len(work)
        self._kv_free = engine.kv_bytes
        self.begun_s, self.ends_s = 0.0, math.inf
        self.steps = 0
        # Whether a new request may cut the plan short: it only decodes, and nobody waits.
        self.is_open = False
        # Counts the plans that were changed before their end.
        self.version = 0
        # Steps so far, and the context tokens of all decoding sequences together.
        self.decoded, self.context = 0, 0
        # A heap: the count of steps at which a sequence ends × number of requests + request.
        self.decoding: list[int] = []
        self.waiting: deque[int] = deque()
        # The admitted prompt of which `unread_tokens` are left; -1 is none.
        self.partly_read, self.unread_tokens = -1, 0
        # Prompts whose last token is read in this plan.
        self.read: list[int] = []
        self.running = 0

    @property
    def is_idle(self) -> bool:
        """Whether it holds no request."""
        return not self.running and not self.waiting

    def receive(self, request: int, now_s: float) -> bool:
        """Queue a request; whether the end of the plan changed."""
        self.waiting.append(request)
        if len(self.waiting) > 1:
            return False
        if not self.running:
            self.ends_s = now_s
            return True
        return self.is_open and self._has_room(request) and self._cut(now_s)

    def _has_room(self, request: int) -> bool:
        return (
            self.running < self._engine.max_sequences
            and self._work.kv_bytes[request] <= self._kv_free
        )

    def _cut(self, now_s: float) -> bool:
        """End the plan with the first step that ends at or after `now_s`."""
        engine, batch = self._engine, len(self.decoding)
        growth = engine.step_s_per_token[batch]
        step = engine.step_s[batch] + growth * self.context / batch
        # n steps take n·step + growth·n(n-1)/2; solved for n in the form that is stable near 0.
        elapsed, half = now_s - self.begun_s, step - growth / 2
        steps = math.ceil(2 * elapsed / (half + math.sqrt(half * half + 2 * growth * elapsed)))
        if steps >= self.steps:
            return False
        self.steps = max(1, steps)
        # Rounding must not end a step before the request that it ends for.
        self.ends_s = max(now_s, self.begun_s + self._decode_s(batch, self.steps))
        self.version += 1
        return True

    def _decode_s(self, batch: int, steps: int) -> float:
        engine = self._engine
        context = self.context / batch + (steps - 1) / 2
        return steps * (engine.step_s[batch] + engine.step_s_per_token[batch] * context)

    def end_plan(self) -> int:
        """Do what the plan did, and begin the next one; how many requests ended."""
        now_s = self.ends_s
        finished = self._generate(now_s) if self.decoding else 0
        if self.read:
            finished += self._begin_decoding(now_s)
        self._plan(now_s)
        return finished

    def _generate(self, now_s: float) -> int:
        work, decoding, count = self._work, self.decoding, self._count
        self.decoded += self.steps
        self.context += self.steps * len(decoding)
        finished, beyond = 0, (self.decoded + 1) * count
        while decoding and decoding[0] < beyond:
            request = heappop(decoding) % count
            self.context -= work.input_tokens[request] + work.output_tokens[request]
            self._finish(request, now_s)
            finished += 1
        return finished

    def _finish(self, request: int, now_s: float) -> None:
        self._log.finished_s[request] = now_s
        self._kv_free += self._work.kv_bytes[request]
        self.running -= 1

    def _begin_decoding(self, now_s: float) -> int:
        """The prompts that were read have their first token."""
        work, first_token_s = self._work, self._log.first_token_s
        finished = 0
        for request in self.read:
            first_token_s[request] = now_s
            left = work.output_tokens[request] - 1
            if left:
                heappush(self.decoding, (self.decoded + left) * self._count + request)
                self.context += work.input_tokens[request] + 1
            else:
                self._finish(request, now_s)
                finished += 1
        self.read.clear()
        return finished

    def _plan(self, now_s: float) -> None:
        self.begun_s = now_s
        self.is_open = False
        batch = len(self.decoding)
        if self.partly_read >= 0 or (self.waiting and self._has_room(self.waiting[0])):
            read = self._read_chunks if self._engine.chunked_prefill else self._read_whole
            self.ends_s = now_s + read(now_s, batch)
        elif batch:
            self._decode_only(now_s, batch)
        else:
            self.ends_s = math.inf

    def _decode_only(self, now_s: float, batch: int) -> None:
        self.steps = self.decoding[0] // self._count - self.decoded
        self.is_open = not self.waiting
        self.ends_s = now_s + self._decode_s(batch, self.steps)

    def _read_chunks(self, now_s: float, batch: int) -> float:
        """Seconds of steps in which every sequence decodes and prompts get the other tokens."""
        tokens = self._engine.max_batched_tokens - batch
        if self.unread_tokens > tokens:
            spent_s = self._read_on(batch, tokens)
        else:
            self.steps = 1
            spent_s = self._read_prompts(now_s, tokens)
        return spent_s + self._decode_s(batch, self.steps) if batch else spent_s

    def _read_on(self, batch: int, tokens: int) -> float:
        """All steps that a long prompt fills, before the one in which it ends."""
        steps = (self.unread_tokens - 1) // tokens
        if batch:
            steps = min(steps, self.decoding[0] // self._count - self.decoded)
        self.steps = steps
        self.unread_tokens -= steps * tokens
        return steps * tokens * self._work.prefill_s_per_token[self.partly_read]

    def _read_prompts(self, now_s: float, tokens: int) -> float:
        """One step: the rest of a prompt, then new ones, the last perhaps in part."""
        work, spent_s = self._work, 0.0
        if self.partly_read >= 0:
            spent_s = self.unread_tokens * work.prefill_s_per_token[self.partly_read]
            tokens -= self.unread_tokens
            self.read.append(self.partly_read)
            self.partly_read, self.unread_tokens = -1, 0
        while tokens and self.waiting and self._has_room(self.waiting[0]):
            request = self._admit(now_s)
            taken = min(work.prefill_tokens[request], tokens)
            tokens -= taken
            spent_s += taken * work.prefill_s_per_token[request]
            if taken == work.prefill_tokens[request]:
                self.read.append(request)
            else:
                self.partly_read = request
                self.unread_tokens = work.prefill_tokens[request] - taken
        return spent_s

    def _read_whole(self, now_s: float, _batch: int) -> float:
        """One step without decoding: whole prompts, at least one."""
        work, spent_s = self._work, 0.0
        self.steps = 0
        tokens = self._engine.max_batched_tokens
        while self.waiting and self._has_room(self.waiting[0]):
            wanted = work.prefill_tokens[self.waiting[0]]
            if wanted > tokens and self.read:
                break
            request = self._admit(now_s)
            tokens -= wanted
            spent_s += wanted * work.prefill_s_per_token[request]
            self.read.append(request)
        return spent_s

    def _admit(self, now_s: float) -> int:
        """First come, first served: a request that has no room holds up those behind it."""
        request = self.waiting.popleft()
        self._log.admitted_s[request] = now_s
        self._kv_free -= self._work.kv_bytes[request]
        self.running += 1
        return request


class _SplitReplica(_Replica):
    """Prefill workers that hand what they have read to decode workers."""

    __slots__ = ("handing_over", "prefill_free_s")

    def __init__(self, work: Work, engine: Engine, log: Log) -> None:
        super().__init__(work, engine, log)
        # Requests that wait for prefill, are in it or on their way to decode.
        self.handing_over = 0
        self.prefill_free_s = 0.0

    @property
    def is_idle(self) -> bool:
        """Whether it holds no request."""
        return not self.handing_over and super().is_idle

    def prefill(self, request: int, now_s: float) -> float:
        """Queue a request for prefill; when it can join the decode batch."""
        work = self._work
        begun_s = max(now_s, self.prefill_free_s)
        self.prefill_free_s = (
            begun_s + work.prefill_tokens[request] * work.prefill_s_per_token[request]
        )
        self._log.admitted_s[request] = begun_s
        self.handing_over += 1
        return begun_s + work.hand_over_s[request]

    def _plan(self, now_s: float) -> None:
        self.begun_s = now_s
        self.is_open = False
        joined = self._join()
        batch = len(self.decoding)
        if not batch:
            self.ends_s = math.inf
            return
        self._decode_only(now_s, batch)
        for request in joined:
            self._log.first_token_s[request] = now_s + self._decode_s(batch, 1)

    def _join(self) -> list[int]:
        work, joined = self._work, []
        while self.waiting and self._has_room(self.waiting[0]):
            request = self.waiting.popleft()
            self._kv_free -= work.kv_bytes[request]
            self.running += 1
            ends = self.decoded + work.output_tokens[request]
            heappush(self.decoding, ends * self._count + request)
            self.context += work.input_tokens[request]
            joined.append(request)
        return joined


class _Fleet:
    """The replicas, the router that gives a request to the least loaded, and the autoscaler."""

    def __init__(self, work: Work, engine: Engine, scaling: Scaling) -> None:
        self._work, self._engine, self._scaling = work, engine, scaling
        empty = bytes(8 * len(work))
        self.log = Log(array("d", empty), array("d", empty), array("d", empty), [])
        self._replicas: list[_Replica] = []
        # The lifetime of the replica in each slot; a slot is used again once its replica ended.
        self._alive: list[Lifetime | None] = []
        # Requests in flight on each replica, infinite on those that take none.
        self._loads: list[float] = []
        # (time, slot, version of the plan that ends); with another version than the replica's own
        # it is out of date. Other events have a constant for a slot, and what they need after it.
        self._events: list[tuple[float, int, int]] = [(math.inf, 0, -1)]
        self._wanted: deque[tuple[float, int]] = deque()
        self.in_flight = 0
        for _ in range(scaling.min_replicas):
            self._launch(0.0, 0.0)
        if not scaling.is_fixed:
            heappush(self._events, (scaling.interval_s, _TICK, 0))

    def arrive(self, request: int, now_s: float) -> None:
        """Let time pass until a request arrives, and route it."""
        events = self._events
        while events[0][0] < now_s:
            self._handle(*heappop(events))
        loads = self._loads
        slot = loads.index(min(loads))
        loads[slot] += 1
        self.in_flight += 1
        replica = self._replicas[slot]
        if isinstance(replica, _SplitReplica):
            ready_s = replica.prefill(request, now_s)
            heappush(events, (ready_s, _HANDED_OVER, slot * len(self._work) + request))
        elif replica.receive(request, now_s):
            heappush(events, (replica.ends_s, slot, replica.version))

    def drain(self, report: Callable[[int], None]) -> None:
        """Let time pass until every request has ended."""
        handled = 0
        while self.in_flight:
            self._handle(*heappop(self._events))
            handled += 1
            if not handled % _REPORT_EVERY:
                report(self.in_flight)

    def _handle(self, now_s: float, slot: int, version: int) -> None:
        if slot >= 0:
            if version == self._replicas[slot].version:
                self._step(slot, self._replicas[slot])
        elif slot == _HANDED_OVER:
            self._hand_over(*divmod(version, len(self._work)), now_s)
        elif slot == _READY:
            self._serve(version, now_s)
        else:
            self._scale(now_s)
            heappush(self._events, (now_s + self._scaling.interval_s, _TICK, 0))

    def _hand_over(self, slot: int, request: int, now_s: float) -> None:
        replica = cast(_SplitReplica, self._replicas[slot])
        replica.handing_over -= 1
        if replica.receive(request, now_s):
            heappush(self._events, (replica.ends_s, slot, replica.version))

    def _step(self, slot: int, replica: _Replica) -> None:
        now_s = replica.ends_s
        finished = replica.end_plan()
        if finished:
            self._loads[slot] -= finished
            self.in_flight -= finished
            if self._loads[slot] == math.inf and replica.is_idle:
                self._end(slot, now_s)
        if replica.ends_s < math.inf:
            heappush(self._events, (replica.ends_s, slot, replica.version))

    def _launch(self, now_s: float, start_up_s: float) -> None:
        slot = self._free_slot()
        lifetime = Lifetime(now_s, now_s + start_up_s)
        self._alive[slot] = lifetime
        self.log.lifetimes.append(lifetime)
        if start_up_s:
            heappush(self._events, (lifetime.ready_s, _READY, slot))
        else:
            self._loads[slot] = 0

    def _free_slot(self) -> int:
        if None in self._alive:
            return self._alive.index(None)
        kind = _SplitReplica if self._engine.is_disaggregated else _Replica
        self._replicas.append(kind(self._work, self._engine, self.log))
        self._alive.append(None)
        self._loads.append(math.inf)
        return len(self._alive) - 1

    def _serve(self, slot: int, now_s: float) -> None:
        lifetime = self._alive[slot]
        # Otherwise it was given up while it started, and another may be starting in its place.
        if lifetime is not None and lifetime.ready_s == now_s and self._loads[slot] == math.inf:
            self._loads[slot] = 0

    def _end(self, slot: int, now_s: float) -> None:
        lifetime = self._alive[slot]
        if lifetime is not None:
            lifetime.ended_s = now_s
        self._alive[slot] = None

    def _scale(self, now_s: float) -> None:
        scaling, recent = self._scaling, self._wanted
        wanted = math.ceil(self.in_flight / scaling.target_in_flight)
        wanted = min(max(wanted, scaling.min_replicas), scaling.max_replicas)
        # Only what may yet be the highest of a later window is kept, so that it is the first.
        while recent and recent[-1][1] <= wanted:
            recent.pop()
        recent.append((now_s, wanted))
        while recent[0][0] < now_s - scaling.scale_down_delay_s:
            recent.popleft()
        starting = self._starting(now_s)
        serving = [slot for slot, load in enumerate(self._loads) if load < math.inf]
        count = len(starting) + len(serving)
        highest = recent[0][1]
        for _ in range(wanted - count):
            self._launch(now_s, scaling.start_up_s)
        if highest < count:
            self._give_up(starting, serving, count - highest, now_s)

    def _starting(self, now_s: float) -> list[int]:
        """Slots of replicas that cannot serve yet, the one started last first."""
        found = [
            (each.launched_s, slot)
            for slot, each in enumerate(self._alive)
            if each is not None and each.ready_s > now_s
        ]
        return [slot for _, slot in sorted(found, reverse=True)]

    def _give_up(self, starting: list[int], serving: list[int], count: int, now_s: float) -> None:
        """Give up `count` replicas: those that start, then those with the least to do."""
        for slot in starting[:count]:
            self._end(slot, now_s)
        serving.sort(key=self._loads.__getitem__)
        for slot in serving[: max(0, count - len(starting))]:
            self._loads[slot] = math.inf
            if self._replicas[slot].is_idle:
                self._end(slot, now_s)


def simulate(
    work: Work, engine: Engine, scaling: Scaling, progress: Callable[[float], None]
) -> Log:
    """Run all requests to their end.

    Args:
        work: Requests that each fit in `engine.kv_bytes` alone.
        engine: One replica.
        scaling: How many replicas there are.
        progress: Called with the share that is done every few thousand events; may raise to stop.
    """
    fleet = _Fleet(work, engine, scaling)
    count = len(work)
    for request, now_s in enumerate(work.arrival_s):
        fleet.arrive(request, now_s)
        if not request % _REPORT_EVERY:
            progress((request + 1 - fleet.in_flight) / count)
    fleet.drain(lambda in_flight: progress(1 - in_flight / count))
    progress(1.0)
    return fleet.log

"""What a process holds, round by round, and whether it has grown."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import psutil

__all__ = ["Sample", "grown"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process holds."""

    calls: int
    descriptors: int
    threads: int
    tasks: int
    memory_mib: float
    objects: int

    @classmethod
    def of_here(cls, calls: int, loop: asyncio.AbstractEventLoop) -> Sample:
        """This process, after so many calls."""
        gc.collect()
        return cls(
            calls=calls,
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=threading.active_count(),
            tasks=len(asyncio.all_tasks(loop)),
            memory_mib=psutil.Process().memory_info().rss / 2**20,
            objects=len(gc.get_objects()),
        )

    def __str__(self) -> str:
        return (
            f"{self.calls:>9,} calls  {self.descriptors:>4} descriptors  {self.threads:>3} threads"
            f"  {self.tasks:>3} tasks"
            f"  {self.memory_mib:7.1f} MiB  {self.objects:>9,} objects"
        )


def grown(samples: Sequence[Sample], limits: Mapping[str, float]) -> list[str]:
    """What has grown since the first quarter, by more than its limit."""
    start, end = asdict(samples[len(samples) // 4]), asdict(samples[-1])
    return [
        f"{name}: {start[name]:,} -> {end[name]:,}" for name, limit in limits.items() if end[name] - start[name] > limit
    ]

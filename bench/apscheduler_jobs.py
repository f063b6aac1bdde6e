"""Run by the peers' interpreter: N jobs, every second on the second or spread over it, each a bare
`create_subprocess_exec`, told its phase as its last argument.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta


async def start(argv: list[str]) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe)
    await process.communicate()


async def main(jobs: int, spread: bool, argv: list[str]) -> None:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    scheduler = AsyncIOScheduler(timezone=UTC)
    first = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    for number in range(jobs):
        phase = number / jobs if spread else 0.0
        scheduler.add_job(
            start,
            "interval",
            [[*argv, f"{phase:.6f}"]],
            seconds=1,
            start_date=first + timedelta(seconds=phase),
            id=f"job-{number}",
        )
    scheduler.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2] == "1", sys.argv[3:]))

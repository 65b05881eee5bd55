"""Map a function over many items, in order: by threads of this process, or by what a caller passes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 256  # results in memory at most, where the order of results waits for a slow one


class Mapper(Protocol):
    """Computes a function of each item and yields the results in the order of the items."""

    def __call__(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        lost: Callable[[Item, str], Result],
    ) -> Iterator[Result]:
        """Yield the results in order.

        Args:
            function: Of a module, as other processes may run it; it can be run again for the same item.
            items: Of any number.
            lost: Returns the result of an item that ended every process which tried it, from the item and the
                reason.
        """
        ...


def map_by_threads(workers: int = 0) -> Mapper:
    """Return a mapper of this process.

    Args:
        workers: Threads; 0 is one per CPU. Decoding and resampling release Python's lock.
    """

    def mapper(
        function: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        lost: Callable[[Item, str], Result],  # noqa: ARG001 - threads are not lost
    ) -> Iterator[Result]:
        return map_in_order(function, items, workers=workers, ahead=AHEAD)

    return mapper


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int = 0, ahead: int = 4
) -> Iterator[Result]:
    """Yield `function` of each item, in order, computed by threads at most `ahead` items in advance.

    Args:
        function: Called with one item, in a thread.
        items: Any number of items; they are taken as needed.
        workers: Threads; 0 is one per CPU.
        ahead: Results held in memory at most.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        running: deque[Future[Result]] = deque()
        try:
            for item in remaining:
                running.append(pool.submit(function, item))
                if len(running) > ahead:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:  # if the reader stops early, nothing further is started
                future.cancel()

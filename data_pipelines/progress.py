"""Progress of slow work: a bar on a terminal, a line per interval elsewhere."""

import sys
import time

import tqdm

LINE_INTERVAL_S = 30.0


class Progress:
    """Counts units of work done, and what came of them.

    Args:
      total: units of work in all.
      unit: what a unit is called.
      product: what comes of the work.
    """

    def __init__(self, total: int, unit: str, product: str):
        self._total = total
        self._unit = unit
        self._product = product
        self._start = self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm.tqdm(total=total, unit=unit, dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, num_done: int, num_products: int) -> None:
        """Shows how many units are done, and how many products came of them so far."""
        if self._bar is not None:
            self._bar.set_postfix({self._product: num_products}, refresh=False)
            self._bar.update(num_done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_INTERVAL_S:
            self._last_line = now
            rate = num_done / (now - self._start)
            left = f"{(self._total - num_done) / rate:.0f} s left" if rate else ""
            print(
                f"{num_done} of {self._total} {self._unit}s, {num_products} "
                f"{self._product}, {rate:.1f} {self._unit}s/s, {left}",
                file=sys.stderr,
                flush=True,
            )

"""What is measured at servers: gauges whose values are gone when they are no longer likely true, and `keep`.

A scrape reads what was measured before and asks nobody. A value that nobody could measure again is served for
a while and then not at all: a number that stands still looks like one that is well. If the process dies here,
the next one measures anew.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import monotonic
from typing import Final, NamedTuple

from prometheus_client import Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.domain.errors import Unavailable
from app.observability.logging import logger

PAUSE_S: Final = 10.0
GOOD_FOR_PAUSES: Final = 3
UP_PAUSE_S: Final = 5.0
UP_TIMEOUT_S: Final = 3.0
LONGEST_S: Final = 60.0
SHARE_MAX: Final = 0.01
"""How much of the time measuring may take: what takes long is measured less often, up to LONGEST_S."""

log = logger("metrics")


class Measured(Collector):
    """A gauge. A value is served for some seconds after it was set, and not at all before and afterwards."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        """Serve nothing yet."""
        self.name = name
        self._text = text
        self._labels = tuple(labels)
        self._values: dict[tuple[str, ...], tuple[float, float]] = {}

    def set(self, value: float, *labels: str, good_for_s: float = PAUSE_S * GOOD_FOR_PAUSES) -> None:
        """This is so now, and likely for `good_for_s` seconds; `labels` are the values of the labels."""
        self._values[labels] = (float(value), monotonic() + good_for_s)

    def clear(self) -> None:
        """Nothing is known any more."""
        self._values.clear()

    def value(self, *labels: str) -> float | None:
        """What is served now, None where nothing is."""
        value, until = self._values.get(labels, (0.0, 0.0))
        return value if monotonic() < until else None

    def describe(self) -> Iterator[Metric]:
        """Name the metric, so that it is registered once."""
        yield GaugeMetricFamily(self.name, self._text, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """The values that are likely true."""
        family = GaugeMetricFamily(self.name, self._text, labels=self._labels)
        now = monotonic()
        for labels, (value, until) in list(self._values.items()):
            if now < until:
                family.add_metric(labels, value)
        yield family


class Reading(NamedTuple):
    """One value of one gauge."""

    of: Measured
    value: float
    labels: tuple[str, ...] = ()


async def keep(
    measure: Callable[[], Awaitable[Sequence[Reading]]],
    *,
    pause_s: float = PAUSE_S,
    longest_s: float = LONGEST_S,
    otherwise: Callable[[], None] = lambda: None,
) -> None:
    """Measure until cancelled, every `pause_s` seconds; what takes long less often, up to `longest_s`.

    `otherwise` is called whenever that fails. What fails for another reason than that a server is away is a
    defect: it is said once, and tried again.
    """
    said = ""
    while True:
        started, pause = monotonic(), pause_s
        readings: Sequence[Reading] = ()
        try:
            readings = await measure()
            pause = max(pause_s, min(longest_s, (monotonic() - started) / SHARE_MAX))
        except Exception as error:  # nothing that is only measured ends a process
            otherwise()
            if not isinstance(error, (Unavailable, TimeoutError)) and repr(error) != said:
                said = repr(error)
                log.exception("not_measured", error=said)
        for reading in readings:
            reading.of.set(reading.value, *reading.labels, good_for_s=pause * GOOD_FOR_PAUSES)
        await asyncio.sleep(pause)


async def keep_up(gauge: Gauge, is_well: Callable[[], Awaitable[bool]]) -> None:
    """Keep `gauge` 1 while a server answers well and 0 while it does not, until cancelled."""

    async def ask() -> Sequence[Reading]:
        async with asyncio.timeout(UP_TIMEOUT_S):
            gauge.set(await is_well())
        return ()

    await keep(ask, pause_s=UP_PAUSE_S, longest_s=UP_PAUSE_S, otherwise=lambda: gauge.set(0))

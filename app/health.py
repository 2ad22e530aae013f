"""The health of a session: its problems, and its metrics for Prometheus."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .._version import __version__
from ..adapters.health import HealthServer
from ..adapters.health_settings import HealthSettings
from ..models.lazy import LazyModel
from .agent import XASAgent
from .output.folder import OutputFolder
from .output.recorder import Recorder

if TYPE_CHECKING:
    from prometheus_client import Metric

STUCK_S = 30.0
"""Time without progress after which the agent's thread counts as stuck, s; a chunk of documents takes less than a
second, and a file that hangs is given up after ``assets.read_s``."""
LATENCY_LIMITS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)
"""Upper limits of the bins of the latency histogram, s."""


class Health:
    """The HTTP endpoint of a session's health, from before its source is connected until its files are written.

    Parameters
    ----------
    settings : HealthSettings

    Raises
    ------
    EndpointUnreachable
        The address cannot be bound.
    InputError
        The extra is not installed.
    """

    def __init__(self, settings: HealthSettings) -> None:
        self._agent: XASAgent | None = None
        self._recorder: Recorder | None = None
        self._output: OutputFolder | None = None
        self._connected: Callable[[], bool] = lambda: False
        checks = {"/healthz": self.illnesses, "/readyz": self.obstacles}
        self._server = HealthServer(settings, checks, self)
        self.url = self._server.url

    def watch(self, agent: XASAgent, recorder: Recorder, output: OutputFolder | None) -> None:
        """Watch an agent and the results of its documents."""
        self._recorder, self._output = recorder, output
        self._agent = agent

    def watch_source(self, connected: Callable[[], bool]) -> None:
        """Call ``connected`` from now on to learn whether the source is connected."""
        self._connected = connected

    def close(self) -> None:
        """Close the endpoint."""
        self._server.close()

    def illnesses(self) -> list[str]:
        """Return the reasons to restart the process; empty if none apply."""
        alive = self._agent is None or self._agent.alive
        return [] if alive else ["the agent's thread has ended"]

    def obstacles(self) -> list[str]:
        """Return the reasons why no frame can be answered at present; empty if none apply."""
        if self._agent is None:
            return ["the models are not loaded"]
        obstacles = self.illnesses()
        obstacles += [m.obstacle for m in self._agent.models if isinstance(m, LazyModel) and m.obstacle]
        if self._agent.ending:
            obstacles.append("the agent is ending")
        if not self._connected():
            obstacles.append("the source is not connected, or has ended")
        if (idle_s := self._agent.state().progress_age_s) > STUCK_S:
            obstacles.append(f"the agent's thread has made no progress for {idle_s:.0f} s")
        return obstacles

    def collect(self) -> "Iterator[Metric]":
        """Yield the current metrics."""
        from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily

        yield InfoMetricFamily("xas_agent", "The running version", {"version": __version__})
        yield GaugeMetricFamily("xas_agent_ready", "Whether frames are answered", not self.obstacles())
        if self._agent is not None:
            yield from _of_agent(self._agent)
        if self._recorder is not None:
            yield from _of_recorder(self._recorder)
        if self._output is not None:
            lost = GaugeMetricFamily(
                "xas_agent_not_written", "Documents and rows of tables that are not in the files", labels=["kind"]
            )
            for kind, count in self._output.refused.items():
                lost.add_metric([kind], count)
            yield lost


def _of_agent(agent: XASAgent) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    state = agent.state()
    if state.document_age_s is not None:
        yield GaugeMetricFamily(
            "xas_agent_document_age_seconds", "Time since the last document arrived", state.document_age_s
        )
    yield GaugeMetricFamily(
        "xas_agent_progress_age_seconds", "Time since the agent's thread began its last turn", state.progress_age_s
    )
    documents = GaugeMetricFamily("xas_agent_queue_documents", "Documents that wait in a queue", labels=["queue"])
    size = GaugeMetricFamily("xas_agent_queue_bytes", "Size of the documents that wait in a queue", labels=["queue"])
    lost = CounterMetricFamily(
        "xas_agent_documents_lost", "Documents that a subscriber was too slow for", labels=["subscriber"]
    )
    failed = CounterMetricFamily(
        "xas_agent_documents_failed", "Documents on which a subscriber raised", labels=["subscriber"]
    )
    documents.add_metric(["inbox"], state.documents)
    size.add_metric(["inbox"], state.bytes)
    for subscriber in state.subscribers:
        documents.add_metric([subscriber.name], subscriber.documents)
        size.add_metric([subscriber.name], subscriber.bytes)
        lost.add_metric([subscriber.name], subscriber.lost)
        failed.add_metric([subscriber.name], subscriber.failed)
    yield from (documents, size, lost, failed)


def _of_recorder(recorder: Recorder) -> "Iterator[Metric]":
    from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

    with recorder.lock:
        yield CounterMetricFamily("xas_agent_frames_answered", "Answered frames", recorder.frames)
        yield CounterMetricFamily(
            "xas_agent_notifications_failed",
            "Notifications not taken by a destination",
            recorder.notifications_failed,
        )
        for name, about, label, counts in (
            ("frames_set_aside", "Frames set aside", "reason", recorder.set_aside),
            ("gaps", "Losses other than frames: runs joined late, documents late or lost", "reason", recorder.gaps),
            ("flags", "Answered frames with a flag", "flag", recorder.flags),
            ("decisions", "Decisions that came to a status", "status", recorder.statuses),
        ):
            metric = CounterMetricFamily(f"xas_agent_{name}", about, labels=[label])
            for value, count in counts.items():
                metric.add_metric([str(value)], count)
            yield metric
        buckets = [(f"{limit:g}", recorder.faster_than(1e3 * limit)) for limit in LATENCY_LIMITS_S]
        yield HistogramMetricFamily(
            "xas_agent_latency_seconds",
            "Time from the last document of a frame to its answer",
            [*buckets, ("+Inf", recorder.frames)],
            recorder.latency_sum_ms / 1e3,
        )

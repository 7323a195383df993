"""What our nodes publish on /diagnostics: one status for every stream and loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from fastwam_msgs.msg import DropCount, StreamStatus

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE
PERIOD = 1.0  # s, as diagnostic_updater does by default


def diagnostic(node: str, part: str, level: bytes, message: str, values: Mapping[str, object]) -> DiagnosticStatus:
    """One status named ``node: part``; numbers are shown with four digits."""
    return DiagnosticStatus(
        name=f"{node}: {part}",
        hardware_id="R1 Lite",
        level=level,
        message=message,
        values=[KeyValue(key=key, value=f"{v:.4g}" if isinstance(v, float) else str(v)) for key, v in values.items()],
    )


def stream_diagnostics(
    node: str, streams: Sequence[StreamStatus], max_age: float, publishers: Mapping[str, Sequence[str]]
) -> list[DiagnosticStatus]:
    """A status for each input stream: STALE when older than `max_age` s, WARN while messages are refused.

    `publishers` are the nodes that publish each stream, as far as they are known: more than one is a WARN that names
    them.
    """
    result = []
    for stream in streams:
        level, message = OK, "ok"
        if stream.age < 0:
            level, message = ERROR, "never received"
        elif stream.age > max_age:
            level, message = STALE, f"older than {max_age:g} s"
        elif len(names := publishers.get(stream.name, ())) > 1:
            level, message = WARN, f"has {len(names)} publishers, end all but one: {', '.join(names)}"
        elif stream.rejected:
            level, message = WARN, "messages were refused"
        values = {
            "rate [Hz]": stream.rate,
            "jitter [ms]": stream.jitter,
            "age [s]": stream.age,
            "clock offset [s]": stream.offset,
            "received": stream.received,
            "rejected": stream.rejected,
        }
        result.append(diagnostic(node, f"stream {stream.name}", level, message, values))
    return result


def counts(drops: Sequence[DropCount]) -> dict[str, object]:
    """Counts by reason, for the values of a status."""
    return {f"{drop.reason} {drop.text}": drop.count for drop in drops}

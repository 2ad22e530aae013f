"""Recorded documents with pages in place of their Events."""

import json

import event_model


def paged(lines: str) -> str:
    """Return the lines of a documents file in which neighbouring Events of frames became pages."""
    waiting: dict[str, list[dict]] = {}
    out: list[str] = []

    def flush() -> None:
        for events in waiting.values():
            page = event_model.pack_event_page(*events)
            out.append(json.dumps(["event_page", page]))
        waiting.clear()

    for line in lines.splitlines():
        name, doc = json.loads(line)
        if name == "event" and "frame_uid" in doc["data"]:
            waiting.setdefault(doc["descriptor"], []).append(doc)
        else:
            flush()
            out.append(line)
    flush()
    return "".join(f"{line}\n" for line in out)

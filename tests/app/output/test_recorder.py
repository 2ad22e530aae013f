"""What a session remembers of the agent's documents."""

from collections import Counter

from xas_agent.agent.types.reasons import Flag, Reason
from xas_agent.app.output.recorder import Recorder


def test_flags_are_counted_even_one_with_a_comma():
    both = ", ".join((Flag.NOT_FLUORESCENCE, Flag.GLITCHES_REPAIRED))
    recorder = Recorder(frames=[{"flags": both}, {"flags": Flag.GLITCHES_REPAIRED.value}, {"flags": ""}])
    assert recorder.flags() == {Flag.NOT_FLUORESCENCE.value: 1, Flag.GLITCHES_REPAIRED.value: 2}


def test_losses_of_documents_are_gaps_and_other_reasons_are_set_aside():
    recorder = Recorder()
    recorder("start", {"uid": "a", "parent_uid": "run", "model": {"name": "none", "sha256": ""}})
    recorder("descriptor", {"uid": "d", "name": "quality", "run_start": "a"})
    notes = ((Reason.EVENTS_LOST, 0, 5), (Reason.NO_PRE_EDGE, 3, 1), (Reason.OVERLOAD, 4, 7))
    for reason, number, count in notes:
        data = {"reason": reason.value, "frame_seq_num": number, "count": count}
        recorder("event", {"descriptor": "d", "data": data})
    assert recorder.gaps == Counter({"events lost": 5})
    assert recorder.set_aside == Counter({"no pre-edge": 1, "overload": 7})
    assert recorder.numbered == 8

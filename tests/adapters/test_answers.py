"""What published documents are about."""

from typing import Any

from made_runs import Made

from xas_agent.adapters.answers import Subjects


def answer_of(subjects: Subjects, stream: str, data: dict[str, Any], **metadata: Any) -> tuple[str, str]:
    own = Made(**metadata)
    made = own.run.compose_descriptor(name=stream, data_keys={}, validate=False)
    subjects("start", own.run.start_doc)
    subjects("descriptor", dict(made.descriptor_doc))
    return subjects("event", dict(made.compose_event(data=data, timestamps={}, validate=False)))


def test_answers_of_two_agents_to_a_frame_are_the_same() -> None:
    about = {"xas_agent": True, "parent_uid": "watched"}
    for stream, data, key in (
        ("descriptors", {"frame_uid": "a"}, "a.descriptors"),
        ("spectra", {"frame_uid": "a"}, "a.spectra"),
        ("quality", {"uid": "a", "reason": "saturated", "frame_seq_num": 3}, "a.saturated"),
        ("quality", {"uid": "a", "reason": "gap", "frame_seq_num": 0}, ""),
        ("decisions", {"id": "b"}, ""),
    ):
        found = {answer_of(Subjects(), stream, data, **about) for _ in range(2)}
        assert found == {("watched", key)}


def test_documents_of_other_runs_are_no_answers() -> None:
    subjects, made = Subjects(), Made().sweep(array=True).stop()
    assert {subjects(name, doc) for name, doc in made.docs} == {(made.uid, "")}

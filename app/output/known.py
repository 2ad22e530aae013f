"""Tells which documents the folder of a session has already."""

from typing import Any

from ...adapters.answers import Answers, Subjects
from ...agent.types import Document


class Known:
    """Recognises documents that a folder has, for one subscriber.

    After a restart, documents are sent again that a subscriber may lack. An agent that shares runs also reads a run
    from its start when it comes back, and answers its frames anew: a broker refuses the answers that it has, and so
    does the folder.

    Parameters
    ----------
    shared : bool
        Whether other agents may take over runs.
    repeated : set of str
        Uids of the folder's documents that may be sent again.
    """

    def __init__(self, *, shared: bool, repeated: set[str]) -> None:
        self._repeated = repeated
        self._subjects, self._answers = (Subjects(), Answers()) if shared else (None, None)

    def __call__(self, name: str, doc: dict[str, Any]) -> bool:
        """Return whether the folder has a document; if not, it is taken to have it from now on."""
        if doc["uid"] in self._repeated:
            return True
        return not self.add((name, doc))

    def add(self, document: Document) -> bool:
        """Record a document of the folder; return whether it is the first answer to its frame, or no answer."""
        if self._subjects is None or self._answers is None:
            return True
        name, doc = document
        run, answer = self._subjects(name, doc)
        if name == "stop" and doc.get("exit_status") == "success":
            self._answers.forget(run)
        return not answer or self._answers.add(run, answer)

"""Fill the disk under a running agent, make space again, kill it and let it go on; print what became of its work.

    python benchmarks/campaigns/full_disk.py [--full 10] [--seed 0] [--folder DIR]

For the agent the disk is full while no file of it may grow (``RLIMIT_FSIZE``). Frames arrive over ZMQ all the time,
and a subscriber notes what is published. The exit code is 1 if a published frame is not in the files at the end, if
nothing was published while the disk was full, if the log does not say once that it is full, or if a frame is lost or
answered twice by the kill after space has returned.
"""

import random
import resource
import signal
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from common import parser_of, report
from kills import Life, Outside, Publisher, Results, accepted

FREE_S = 5.0
"""Time with space before and after, s."""


def answered(outside: Outside) -> set[str]:
    """Return the uids of the frames whose answers a subscriber received."""
    documents = list(outside.documents.values())
    return {doc["data"]["frame_uid"] for name, doc in documents if name == "event" and "OS" in doc["data"]}


def campaign(full_s: float, seed: int, folder: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the figures and the problems."""
    out = folder / "out"
    with closing(Outside(folder)) as outside:
        publisher = Publisher(random.Random(seed).randrange(2**31))
        first = Life.start(outside.config, publisher.address, out)
        first.ready.wait(60)
        time.sleep(FREE_S)
        before = answered(outside)
        largest = max(path.stat().st_size for path in out.iterdir())
        _, hard = resource.prlimit(first.process.pid, resource.RLIMIT_FSIZE, (min(largest, 100_000), -1))
        time.sleep(full_s)
        during = answered(outside) - before
        resource.prlimit(first.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        time.sleep(FREE_S)
        first.kill()
        known = accepted(out)
        second = Life.start(outside.config, publisher.address, out)
        second.ready.wait(60)
        time.sleep(FREE_S)
        publisher.close()
        second.process.send_signal(signal.SIGTERM)
        code = second.process.wait()
        time.sleep(1.0)
        found = Results.of(out)
        everywhere = answered(outside)
    said = "".join(first.said)
    alarms = {what: said.count(what) for what in ("output not written", "journal not written", "written again")}
    return {
        "frames sent": publisher.sent,
        "published before, while the disk was full, in all": f"{len(before)} {len(during)} {len(everywhere)}",
        "frames in the files": len(found.answers),
        "lines of the log": alarms,
        "frames whose records the journal held at the kill": len(known),
    }, {
        "nothing was published while the disk was full": int(not during),
        "frames published and not in the files": len(everywhere - found.answers.keys()),
        "frames accepted and not answered": len(known - found.answers.keys()),
        "frames answered twice": sum(number > 1 for number in found.answers.values()),
        "documents twice in the file": sum(number > 1 for number in found.uids.values()),
        "the alarm was not given once": int(alarms["output not written"] != 1 or alarms["journal not written"] != 1),
        "the second agent failed": int(code != 0),
    }


def main() -> None:
    parser = parser_of(__doc__, 0.0, "unused")
    parser.add_argument("--full", type=float, default=10.0, help="time for which the disk is full, s")
    parser.add_argument("--folder", type=Path, help="keep the files here, in a new folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report(*campaign(options.full, options.seed, folder))


if __name__ == "__main__":
    main()

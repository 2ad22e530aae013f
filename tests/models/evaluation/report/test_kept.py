"""Work in processes of one thread each, which leaves this process as it was."""

import os

import numpy as np
import pytest

pytest.importorskip("sklearn")

from xas_agent.models.evaluation.report.kept import Piece, run_all


def threads() -> dict[str, np.ndarray]:
    """Threads that numerical libraries may start in the process of the work."""
    import torch
    from threadpoolctl import threadpool_info

    found = [torch.get_num_threads(), *(library["num_threads"] for library in threadpool_info())]
    return {"threads": np.array(found), "for others": np.array(int(os.environ["OMP_NUM_THREADS"]))}


@pytest.mark.slow
def test_work_takes_one_thread_and_the_environment_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    before = dict(os.environ)
    (found,) = run_all("threads", [Piece("threads", 1, threads)], tmp_path, 1, lambda *_: None)
    assert dict(os.environ) == before
    assert set(found["threads"].tolist()) == {1}
    assert found["for others"] == 1

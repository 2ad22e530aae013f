"""From where another agent reads a partition."""

from made_runs import Made

from xas_agent.adapters.partition import Partition, partition_of


def take_all(partition: Partition, runs: list[Made], first: int = 1) -> list[float | None]:
    documents = [document for run in runs for document in run.docs]
    return [partition.take(first + k, name, doc, 0.0) for k, (name, doc) in enumerate(documents)]


def test_reading_begins_at_the_oldest_open_run() -> None:
    over, open_run = Made().sweep(array=True).stop(), Made().sweep(array=True)
    partition = Partition(Partition.new(0))
    assert take_all(partition, [over, open_run]) == [0.0] * 7
    assert partition.acknowledge(7, [over.uid])
    assert not partition.acknowledge(7, [])
    assert partition.begin == 5
    after = Partition(partition.state)
    ages = take_all(after, [over, open_run, Made()])
    assert ages[:4] == [None] * 4
    assert all(age is not None and age > 3600 for age in ages[4:7])
    assert ages[7:] == [0.0]


def test_an_ended_run_among_open_ones_is_skipped() -> None:
    open_run, over = Made().sweep(array=True), Made().sweep(array=True).stop()
    partition = Partition(Partition.new(0))
    take_all(partition, [open_run, over])
    partition.acknowledge(7, [over.uid])
    assert partition.begin == 1
    assert [age is None for age in take_all(Partition(partition.state), [open_run, over])] == [False] * 3 + [True] * 4


def test_unacknowledged_documents_come_again_as_new() -> None:
    run = Made().sweep(array=True)
    partition = Partition(Partition.new(0))
    take_all(partition, [run])
    assert take_all(Partition(partition.state), [run]) == [0.0] * 3


def test_a_run_without_a_stop_is_given_up_after_a_day() -> None:
    partition = Partition(Partition.new(0))
    broken, later = Made(), Made()
    partition.take(1, *broken.docs[0], 0.0)
    partition.take(2, *later.docs[0], 90_000.0)
    partition.acknowledge(2, [])
    assert partition.state["open"] == {later.uid: 2}


def test_the_agents_own_runs_hold_nothing_back() -> None:
    partition = Partition(Partition.new(0))
    partition.take(1, *Made(xas_agent=True).docs[0], 0.0)
    partition.acknowledge(1, [])
    assert partition.begin == 2


def test_a_runs_partition_is_the_same_everywhere() -> None:
    assert {partition_of(f"run {k}", 8) for k in range(200)} == set(range(8))

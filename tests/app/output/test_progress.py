"""Progress of long work, on a terminal and elsewhere."""

from io import StringIO

from rich.console import Console

from xas_agent.app.output.progress import LINES_PER_TASK, RARE_S, RareLines, progress_bars


def console(*, terminal: bool) -> Console:
    return Console(file=StringIO(), force_terminal=terminal, width=100, color_system=None)


def written(on: Console) -> str:
    assert isinstance(on.file, StringIO)
    return on.file.getvalue()


def test_without_a_terminal_each_piece_is_a_line():
    on = console(terminal=False)
    with progress_bars(on) as show:
        show("benchmark", 0, None)
        show("benchmark", 1, 2, "kept from before")
        show("benchmark", 2, 2, "SPT [bold]")
    assert written(on) == "benchmark\nbenchmark: 1 of 2, kept from before\nbenchmark: 2 of 2, SPT [bold]\n"


def test_a_task_of_many_pieces_is_a_line_per_percent():
    on, pieces = console(terminal=False), 37 * LINES_PER_TASK
    with progress_bars(on) as show:
        for done in range(pieces + 1):
            show("FEFF", done, pieces)
    lines = written(on).splitlines()
    assert len(lines) == LINES_PER_TASK + 1
    assert (lines[0], lines[-1]) == (f"FEFF: 0 of {pieces}", f"FEFF: {pieces} of {pieces}")


def test_a_terminal_shows_a_bar_for_each_task():
    on = console(terminal=True)
    with progress_bars(on) as show:
        show("member 0", 1, 4, "validation 0.5")
        show("member 1", 4, 4)
    last = written(on)
    assert "member 0: validation 0.5" in last
    assert "1/4" in last
    assert "member 1" in last
    assert "4/4" in last


def test_beside_messages_a_log_has_a_line_now_and_then_and_none_for_short_work():
    on, now = console(terminal=False), [0.0]
    show = RareLines(on, lambda: now[0])
    for done in range(1, 91):
        now[0] = done * RARE_S / 30
        show("serving", done, 90)
    assert written(on) == "serving: 30 of 90\nserving: 60 of 90\nserving: 90 of 90\n"
    short = console(terminal=False)
    RareLines(short, lambda: 0.0)("serving", 5, 5)
    assert written(short) == ""

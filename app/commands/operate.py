"""Commands to a running session: ``xas-agent status``, ``approve``, ``resume``, ``halt`` and others."""

from typing import Annotated, Any

import typer

from ...wording import counted
from ..ask import Refused, ask, named
from .shared import FAILED, INTERRUPTED, USAGE, fail

SessionOption = Annotated[
    str | None,
    typer.Option(
        "--session",
        envvar="XAS_AGENT_SESSION",
        help="Process id or --out folder of the session. [default: the only one]",
    ),
]
AsOption = Annotated[str | None, typer.Option("--as", help="Who you are, for the audit. [default: the user]")]
WhyOption = Annotated[str, typer.Option("--why", help="Reason, for the audit.")]
IdArgument = Annotated[
    str,
    typer.Argument(
        help="First characters of the decision's id, as pending shows them; may be left out if one waits."
    ),
]


def status(session: SessionOption = None) -> None:
    """Say what a running session does: frames, decisions, what waits, and whether it is paused or halted."""
    answer = _ask("status", session)
    newest = answer["newest"]
    if not answer["connected"]:
        typer.echo("CONNECTION LOST to the source; what it sends meanwhile does not arrive")
    typer.echo(f"frames     {answer['frames']}, decisions {answer['decisions']}")
    if "OS_mean" in newest:
        interval = f"({newest['OS_lo']:.2f}…{newest['OS_hi']:.2f})"
        typer.echo(f"newest     frame {newest['seq_num']}, OS {newest['OS_mean']:.2f} e {interval}")
    if answer["document_age_s"] is not None:
        count = answer["waiting_documents"]
        waits = f", {counted(count, 'document waits', 'documents wait')}" if count else ""
        typer.echo(f"last seen  {answer['document_age_s']:.0f} s ago{waits}")
    if answer["pending"]:
        waiting = "decision waits" if answer["pending"] == 1 else "decisions wait"
        typer.echo(f"pending    {answer['pending']} {waiting} for approval: xas-agent pending")
    if answer["notifications_failed"]:
        typer.echo(
            f"NOTIFY     {answer['notifications_failed']} failed; the latest: {answer['notification_failure']}"
        )
    if answer["paused"]:
        typer.echo(f"PAUSED     for {answer['paused_s']:.0f} s {answer['paused']}; xas-agent resume goes on")
    if answer["halted"]:
        typer.echo(f"HALTED     {answer['halted']}; xas-agent release lets rules act again")


def pending(session: SessionOption = None) -> None:
    """List the decisions that wait for a person."""
    waiting = _ask("pending", session)["pending"]
    for d in waiting:
        sample = f" ({d['sample']})" if d["sample"] else ""
        typer.echo(
            f"{d['short_id']}  {d['what']} by {d['rule']}{sample}, {d['remaining_s']:.0f} s left: {d['reason']}"
        )
    if not waiting:
        typer.echo("no decision waits")


def approve(id: IdArgument = "", session: SessionOption = None, by: AsOption = None) -> None:
    """Send a decision that waits for a person."""
    decision = _ask("approve", session, by, id=id)["decision"]
    typer.echo(f"approved {_described(decision)}")


def reject(id: IdArgument = "", session: SessionOption = None, by: AsOption = None, why: WhyOption = "") -> None:
    """Give up a decision that waits for a person."""
    decision = _ask("reject", session, by, id=id, why=why)["decision"]
    typer.echo(f"rejected {_described(decision)}")


def pause(session: SessionOption = None, by: AsOption = None) -> None:
    """Pause the experiment that a session watches."""
    _order("pause", session, by)


def resume(session: SessionOption = None, by: AsOption = None) -> None:
    """Let a paused experiment go on."""
    _order("resume", session, by)


def stop(session: SessionOption = None, by: AsOption = None) -> None:
    """Stop the experiment that a session watches; the session goes on."""
    _order("stop", session, by)


def halt(session: SessionOption = None, by: AsOption = None, why: WhyOption = "") -> None:
    """Emergency stop: stop the experiment and the robot; until it is released, rules can only stop."""
    answer = _ask("halt", session, by, why=why)
    typer.echo("halted: rules can only stop; xas-agent release ends this")
    _tell_all([("stop", answer["decision"]), *(("halt of the robot", robot) for robot in answer["robot"])])


def release(session: SessionOption = None, by: AsOption = None) -> None:
    """End an emergency stop: rules act again."""
    robots = _ask("release", session, by)["robot"]
    typer.echo("released: rules act again")
    _tell_all([("release of the robot", robot) for robot in robots])


def _described(decision: dict[str, Any]) -> str:
    sample = f" ({decision['sample']})" if decision["sample"] else ""
    return f"{decision['id'][:8]}: {decision['what']} by {decision['rule']}{sample}: {decision['reason']}"


def _order(action: str, session: str | None, by: str | None) -> None:
    _tell_all([(action, _ask(action, session, by)["decision"])])


def _tell_all(orders: list[tuple[str, dict[str, Any]]]) -> None:
    """Say what became of orders; fail if one was not carried out."""
    failures: list[str] = []
    for order, decision in orders:
        why = f": {decision['status_reason']}" if decision["status_reason"] else ""
        if decision["status"] == "acknowledged":
            typer.echo(f"{order} acknowledged{why}")
        elif decision["status"] in ("rejected", "expired"):
            failures.append(f"{order} {decision['status']}{why}")
        else:
            failures.append(f"{order} requested, and not answered yet")
    if failures:
        fail("; ".join(failures), FAILED)


def _ask(command: str, session: str | None, by: str | None = None, **arguments: Any) -> dict[str, Any]:
    """Return the answer of a session, after its name is printed."""
    try:
        answer = ask(command, session, **arguments, **({"by": by} if by else {}))
    except Refused as error:
        fail(_printable(str(error)), USAGE)
    except KeyboardInterrupt:
        fail("interrupted", INTERRUPTED)
    answer = _printable(answer)
    typer.echo(named(answer["session"]))
    return answer


def _printable(value: Any) -> Any:
    """Return an answer without control characters: a name of a sample could erase what a person approves."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() or c == "\n" else "�" for c in value)
    if isinstance(value, dict):
        return {name: _printable(item) for name, item in value.items()}
    return [_printable(item) for item in value] if isinstance(value, list) else value

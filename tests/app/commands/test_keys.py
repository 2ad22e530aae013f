"""Keys are made, listed and revoked at the command line, and secret ones stay with their owner."""

import pytest
import zmq.auth


def test_keys_are_made_listed_and_revoked(xa, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert xa("keys", "make", "beamline", "--server").stdout.strip() == "keys/beamline.key_secret"
    for name in ("agent", "viewer"):
        xa("keys", "make", name)
        assert (tmp_path / "keys" / f"{name}.key_secret").stat().st_mode & 0o777 == 0o600
    listed = [line.split() for line in xa("keys", "list").stdout.splitlines()]
    assert [line[:2] for line in listed] == [["agent", "permitted"], ["viewer", "permitted"]]
    public, secret = zmq.auth.load_certificate(tmp_path / "keys" / "agent.key_secret")
    assert listed[0][2] == public.decode()
    assert secret is not None
    assert zmq.auth.load_certificate(tmp_path / "keys" / "clients" / "agent.key") == (public, None)

    (tmp_path / "keys" / "clients" / "copy.key").write_bytes((tmp_path / "keys" / "agent.key").read_bytes())
    xa("keys", "revoke", "agent")
    assert [line.split()[:2] for line in xa("keys", "list").stdout.splitlines()] == [
        ["viewer", "permitted"],
        ["agent", "revoked"],
        ["copy", "revoked"],
    ]
    assert "no permitted client 'agent'" in xa("keys", "revoke", "agent", code=2).stderr
    assert "keys/agent.key exists; choose another name" in xa("keys", "make", "agent", code=2).stderr


@pytest.mark.parametrize("name", ["../x", ".x", "a b", "x" * 65])
def test_a_name_that_is_no_file_name_is_refused(xa, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert "expected letters, digits, - and _" in xa("keys", "make", name, code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_made_once(xa, tmp_path):
    xa("keys", "secret", tmp_path / "control.secret")
    assert len((tmp_path / "control.secret").read_text().strip()) == 64
    assert "File exists" in xa("keys", "secret", tmp_path / "control.secret", code=2).stderr


def test_options_of_security_that_would_do_nothing_are_refused(xa, tmp_path):
    xa("keys", "make", "agent", "--folder", tmp_path)
    key = tmp_path / "agent.key_secret"
    assert "CURVE keys: no effect without a ZMQ endpoint" in xa("run", "--curve-key", key, code=2).stderr
    assert "CURVE keys: no effect" in xa("replay", tmp_path, "--curve-key", key, code=2).stderr
    (tmp_path / "connects.yaml").write_text("source: {address: 'zmq://127.0.0.1:9'}\n")
    (tmp_path / "binds.yaml").write_text("source: {address: 'zmq://127.0.0.1:9', bind: true}\n")
    clients = "--curve-clients: no effect without an endpoint that binds; set bind: true, or leave it out\n"
    run = ("run", "--curve-key", key, "--config")
    assert xa(*run, tmp_path / "connects.yaml", "--curve-clients", tmp_path, code=2).stderr == f"xas-agent: {clients}"
    server = "--curve-server-key: no effect without an endpoint that connects; leave it out\n"
    assert xa(*run, tmp_path / "binds.yaml", "--curve-server-key", key, code=2).stderr == f"xas-agent: {server}"
    assert xa("sim", "--curve-key", key, "--curve-server-key", key, code=2).stderr == f"xas-agent: {server}"
    assert "--control-secret: no effect without control_endpoint" in xa("run", "--control-secret", key, code=2).stderr
    said = xa("sim", "--publish", "zmq://127.0.0.1:0", "--control", "zmq://0.0.0.0:0", code=2).stderr
    assert "0.0.0.0:0: other machines reach this control" in said
    said = xa("sim", "--publish", "zmq://127.0.0.1:0", "--control", "zmq://127.0.0.1:0", code=2).stderr
    assert "every process of this machine reaches this control; set secret_file or the variable" in said

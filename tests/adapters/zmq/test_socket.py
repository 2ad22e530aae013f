import pytest
import zmq
import zmq.auth

from xas_agent.adapters.zmq.socket import Endpoint, EndpointSocket
from xas_agent.agent.types.errors import InputError


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Folder with the CURVE certificates of a server."""
    folder = tmp_path_factory.mktemp("keys")
    zmq.auth.create_certificates(folder, "server")
    return folder


def test_a_public_certificate_is_no_secret_key(keys):
    endpoint = Endpoint(address="127.0.0.1:0", bind=True, curve_secret_key=keys / "server.key")
    with pytest.raises(InputError, match="expected one with the secret key"):
        EndpointSocket(endpoint, zmq.SUB)


@pytest.mark.parametrize(
    "content", ["", "dear colleague", "public-key", 'public-key = "abc"', f'public-key = "{"é" * 40}"']
)
@pytest.mark.parametrize("where", ["curve_secret_key", "curve_server_key", "curve_client_keys"])
def test_a_bad_certificate_is_named(keys, tmp_path, content, where):
    bad = tmp_path / "bad.key"
    bad.write_text(content, encoding="utf-8")
    curve = {"curve_secret_key": keys / "server.key_secret"}
    curve |= {"curve_server_key": keys / "server.key"} if where == "curve_server_key" else {"bind": True}
    curve[where] = tmp_path if where == "curve_client_keys" else bad
    endpoint = Endpoint(address="127.0.0.1:1", **curve)
    with pytest.raises(InputError) as error:
        EndpointSocket(endpoint, zmq.SUB)
    for part in (f"{bad}: not a CURVE certificate", "expected a file of xas-agent keys make"):
        assert part in str(error.value)


@pytest.mark.parametrize("address", ["foo", "127.0.0.1", "http://127.0.0.1:80", "127.0.0.1:70000", ""])
def test_an_address_given_alone_is_a_user_error(address):
    with pytest.raises(InputError, match=f"found '{address}', expected zmq://HOST:PORT"):
        Endpoint.at(address)


@pytest.mark.parametrize("address", ["zmq://127.0.0.1:5578", "tcp://127.0.0.1:5578", "127.0.0.1:5578"])
def test_addresses_of_one_endpoint(address):
    assert Endpoint.at(address).zmq_address == "tcp://127.0.0.1:5578"

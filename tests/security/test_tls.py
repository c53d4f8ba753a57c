"""TLS contexts: shared, never changed, strict."""

from __future__ import annotations

import os
import signal
import ssl
import threading
from pathlib import Path

import pytest
import trustme

from meshlib.config.settings import TlsSettings
from meshlib.errors import TLSFailed
from meshlib.security import tls
from meshlib.security.tls import client_context, forget_contexts


def test_equal_settings_share_one_context_across_threads() -> None:
    forget_contexts()
    found: list[ssl.SSLContext] = []
    threads = [threading.Thread(target=lambda: found.append(client_context(TlsSettings()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(context) for context in found}) == 1
    assert client_context(TlsSettings()) is found[0]
    forget_contexts()
    assert client_context(TlsSettings()) is not found[0]


def test_http2_has_a_context_of_its_own() -> None:
    assert client_context(TlsSettings(), http2=True) is not client_context(TlsSettings())


def test_verification_and_tls_1_2_are_the_default() -> None:
    context = client_context(TlsSettings())
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.get_ca_certs() or not ssl.create_default_context().get_ca_certs()


def test_an_encrypted_key_does_not_ask_on_the_terminal(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    own = trustme.CA().issue_cert("x.mesh")
    own.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    key = serialization.load_pem_private_key(own.private_key_pem.bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hush"),
        )
    )
    with pytest.raises(TLSFailed, match="encrypted"):
        client_context(TlsSettings(cert_file=str(tmp_path / "cert.pem"), key_file=str(tmp_path / "key.pem")))


def test_a_file_that_is_not_pem_is_named(tmp_path: Path) -> None:
    path = tmp_path / "roots.pem"
    path.write_text("not PEM at all")
    with pytest.raises(TLSFailed, match=r"roots\.pem"):
        client_context(TlsSettings(ca_file=str(path)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_a_context_was_put_away_makes_its_own() -> None:
    with tls._lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(5)
            client_context(TlsSettings(verify=False))
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

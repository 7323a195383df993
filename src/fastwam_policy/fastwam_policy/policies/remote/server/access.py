"""Who may connect: the API key, TLS, and how far the server listens."""

from __future__ import annotations

import hmac
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from galaxea_r1lite_bridge.robot.yaml_model import ConfigError

_KEY_LENGTH = (16, 512)


@dataclass(frozen=True)
class Access:
    """What a client needs.

    Attributes:
        key: that it must know; empty: none.
        tls: the server's certificate; None: not encrypted.
    """

    key: str = ""
    tls: ssl.SSLContext | None = None

    def allows(self, given: object) -> bool:
        """Whether a client that gives this key may ask; takes the same time for every wrong key of a length."""
        if not self.key:
            return True
        # A header's bytes that are no UTF-8 come as surrogates.
        return isinstance(given, str) and hmac.compare_digest(given.encode(errors="surrogateescape"), self.key.encode())

    def warning(self, host: str) -> str:
        """A line for the operator where others than this machine may connect, empty where that is guarded."""
        missing = [text for text, there in (("an API key", self.key), ("TLS", self.tls)) if not there]
        if not missing or is_this_machine(host):
            return ""
        lacks = " and without ".join(missing)
        return (
            f"WARNING: listening on {host} without {lacks}: whoever reaches this machine can "
            + ("use the policy" if not self.key else "read the key on the way")
            + " and see the robot's pictures. Give --api-key-file, --cert and --key"
        )


def is_this_machine(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_access(key_file: Path | None, certificate: Path | None, private_key: Path | None) -> Access:
    """From files, each of which may be left out.

    Raises:
        ConfigError: a file is missing or holds something else, or the certificate comes without its key.
    """
    if (certificate is None) != (private_key is None):
        raise ConfigError("--cert and --key: give both, the certificate's file and its private key's")
    key = "" if key_file is None else _read_key(key_file)
    if certificate is None or private_key is None:
        return Access(key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, private_key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--cert {certificate}, --key {private_key}: not a certificate in PEM and its private key: {error}"
        ) from None
    return Access(key, context)


def _read_key(file: Path) -> str:
    try:
        key = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file {file}: {error}") from None
    least, most = _KEY_LENGTH
    if not (least <= len(key) <= most and key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"--api-key-file {file}: must hold {least} to {most} letters without blanks, as `openssl rand -hex 32`"
        )
    return key

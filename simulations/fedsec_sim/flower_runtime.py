"""Flower's own runtimes on loopback, unchanged, to compare with.

A SuperLink with SuperNodes over TLS, as its manual says, or with its simulation engine (Ray).
"""

import datetime as dt
import ipaddress
import json
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedsec_sim.processes import Family, Process, wait_until

_BIN = Path(sys.executable).parent  # SuperLink starts its helpers by name


@dataclass(frozen=True)
class FlowerRuntime:
    """A running SuperLink with its SuperNodes.

    Attributes:
        directory: Holds logs, certificates and Flower's own settings.
        nodes: SuperNodes, or nodes of the simulation.
        environment: For every command of Flower's.
        processes: SuperLink, then SuperNodes, if they are real.
    """

    directory: Path
    nodes: int
    environment: Mapping[str, str]
    processes: tuple[Process, ...]

    def run(self, app: Path, config: Mapping[str, object], report: Path, seconds: float) -> None:
        """Runs the app in the directory `app` and waits until it has written `report`.

        Args:
            app: With a ``pyproject.toml``.
            config: Overrides of the app's configuration.
            report: What the app writes last.
            seconds: How long at most.
        """
        overrides = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
        command = [str(_BIN / "flwr"), "run", str(app), "measured", "--stream"]
        command += ["--run-config", overrides]
        if len(self.processes) == 1:
            command += ["--federation-config", f"num-supernodes={self.nodes}"]
        log = self.directory / f"run-{report.stem}.log"
        with Family() as family:
            run = family.add(Process(f"Flower's run of {app.name}", command, log, self.environment))
            run.start()
            wait_until(report.exists, seconds, "its report", [run])


@contextmanager
def flower_runtime(
    directory: Path, nodes: int, *, simulated: bool = False
) -> Iterator[FlowerRuntime]:
    """Yields Flower's runtime with `nodes` nodes; all of it ends with the block.

    Telemetry and the search for updates are off, apps' dependencies are not installed, and the
    command line's settings lie in `directory`: nothing but the transport is measured, and nothing
    of this machine's is touched.

    Args:
        directory: Made here.
        nodes: How many.
        simulated: Flower's simulation engine instead of SuperNodes; needs Ray.
    """
    directory.mkdir(parents=True)
    _make_certificates(directory)
    ports = _free_ports(1 if simulated else 1 + nodes)
    environment = _settings(directory, ports[0])
    with Family() as family:
        processes = [
            Process(name, command, directory / f"{name}.log", environment)
            for name, command in _commands(directory, ports, simulated=simulated)
        ]
        for process in processes:
            family.add(process).start()
            if process is processes[0]:
                wait_until(
                    lambda: "Uvicorn running" in processes[0].tail() or None,
                    60,
                    "Flower's SuperLink",
                    processes[:1],
                )
        yield FlowerRuntime(directory, nodes, environment, tuple(processes))


def _settings(directory: Path, port: int) -> dict[str, str]:
    """Writes the command line's settings; returns the programs' environment."""
    home = directory / "flwr"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "measured"\n[superlink.measured]\n'
        f'address = "127.0.0.1:{port}"\nroot-certificates = "{directory}/ca.pem"\n',
        encoding="utf-8",
    )
    return {
        "PATH": f"{_BIN}:/usr/bin:/bin",
        "HOME": str(directory),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "127.0.0.1",
    }


def _commands(
    directory: Path, ports: list[int], *, simulated: bool
) -> Iterator[tuple[str, list[str]]]:
    tls = [f"--ssl-{what}file={directory / name}" for what, name in _TLS_FILES]
    yield (
        "superlink",
        [
            str(_BIN / "flower-superlink"),
            *tls,
            f"--port={ports[0]}",
            "--disable-runtime-dependency-installation",
            *(["--simulation"] if simulated else []),
        ],
    )
    for index, port in enumerate(ports[1:]):
        yield (
            f"supernode-{index}",
            [
                str(_BIN / "flower-supernode"),
                f"--root-certificates={directory / 'ca.pem'}",
                f"--superlink=127.0.0.1:{ports[0]}",
                f"--port={port}",
            ],
        )


_TLS_FILES = (("ca-cert", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem"))


def _free_ports(count: int) -> list[int]:
    """Returns ports that are free now; Flower's programs cannot choose one by themselves."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


def _make_certificates(directory: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(name: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    ca = certificate("ca", ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    leaf = certificate("superlink", key.public_key()).add_extension(
        x509.SubjectAlternativeName(names), critical=False
    )
    for name, built in (("ca.pem", ca), ("cert.pem", leaf)):
        signed = built.sign(ca_key, hashes.SHA256())
        (directory / name).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )

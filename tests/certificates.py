"""Certificates, good and bad, made by the openssl command: two CAs, brokers at 127.0.0.1 and localhost, devices.

``ca`` signs all but ``device-stranger``, which is of ``other-ca``. ``device-locked.key`` is ``device.key`` with a
passphrase.
"""

import subprocess
from pathlib import Path

NOW_AND_LONG = "20200101000000Z", "20491231000000Z"
PAST = "20200101000000Z", "20200201000000Z"
TO_COME = "20491201000000Z", "20491231000000Z"
HERE, ELSEWHERE = "IP:127.0.0.1,DNS:localhost", "DNS:elsewhere.example"
LEAVES = {
    "broker": ("ca", NOW_AND_LONG, HERE),
    "broker-expired": ("ca", PAST, HERE),
    "broker-to-come": ("ca", TO_COME, HERE),
    "broker-elsewhere": ("ca", NOW_AND_LONG, ELSEWHERE),
    "device": ("ca", NOW_AND_LONG, None),
    "device-expired": ("ca", PAST, None),
    "device-stranger": ("other-ca", NOW_AND_LONG, None),
}
CONFIG = """
[req]
distinguished_name = name
[name]
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[sign]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
"""


def make(folder: Path) -> None:
    """Make them all."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc")
    (folder / "openssl.cnf").write_text(CONFIG)
    (folder / "serial").write_text("01\n")
    (folder / "index").touch()
    for ca in ("ca", "other-ca"):
        files = ("-keyout", f"{ca}.key", "-out", f"{ca}.crt", "-config", "openssl.cnf", "-extensions", "root")
        openssl("req", "-x509", *new_key, "-subj", f"/CN=TinySight test {ca}", "-days", "30", *files)
    for name, (ca, (begin, end), host) in LEAVES.items():
        extensions = "authorityKeyIdentifier = keyid\n" + (f"subjectAltName = {host}\n" if host else "")
        (folder / f"{name}.ext").write_text(extensions)
        asked = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-config", "openssl.cnf")
        openssl("req", *new_key, "-subj", f"/CN={name}", *asked)
        signer = ("-config", "openssl.cnf", "-name", "sign", "-cert", f"{ca}.crt", "-keyfile", f"{ca}.key")
        span = ("-startdate", begin, "-enddate", end, "-extfile", f"{name}.ext", "-notext")
        openssl("ca", "-batch", *signer, *span, "-in", f"{name}.csr", "-out", f"{name}.crt")
    openssl("pkey", "-aes128", "-passout", "pass:x", "-in", "device.key", "-out", "device-locked.key")

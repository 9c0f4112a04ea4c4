"""The same site for an EMQX cluster: its configuration, and who may say and hear what.

In: a `Setup`.  Out: the text of ``emqx.conf`` and ``rules.json``. Pure. Written from EMQX's documentation of 5.7
to 5.10, and never run here: no package of it can be had for the tests. From 5.9 on EMQX is under the Business Source
License 1.1, and more than one node needs a licence file.
"""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import msgspec

from tinysight_contract import topics as t
from tinysight_deploy.brokers.config import FROM_DEVICES, TO_DEVICES, Setup

__all__ = ["emqx_conf", "emqx_rules"]


def emqx_conf(setup: Setup) -> str:
    """``emqx.conf`` of one node; each node of a cluster has the same, but for its name."""
    at = PurePosixPath(setup.installed_at)
    server = f'certfile = "{at / "server.crt"}"\n    keyfile = "{at / "server.key"}"'
    return f"""\
# EMQX 5.7 or later for the site {setup.site}. Written by `tinysight broker config --emqx`, anew each time.
# Set node.name, node.cookie and cluster.* of your cluster beside it.

# Devices: the certificate's common name is the user name and the client id, whatever the client says.
zones.devices.mqtt {{
  peer_cert_as_username = cn
  peer_cert_as_clientid = cn
}}

mqtt {{
  max_packet_size = 1MB
  max_inflight = 500
  max_mqueue_len = 10000
  server_keepalive = disabled
  shared_subscription = true
  shared_subscription_strategy = hash_clientid
}}

listeners.ssl.default {{
  bind = {setup.port}
  zone = devices
  max_connections = 1000000
  ssl_options {{
    cacertfile = "{at / "ca.crt"}"
    {server}
    versions = ["tlsv1.3"]
    verify = verify_peer
    fail_if_no_peer_cert = true
  }}
}}

# People and their programs, by password.
listeners.ssl.people {{
  bind = {setup.people_port}
  ssl_options {{
    {server}
    verify = verify_none
  }}
}}

listeners.wss.default {{
  bind = {setup.websocket_port}
  ssl_options {{
    {server}
    verify = verify_none
  }}
}}

# Nothing without TLS.
listeners.tcp.default.enable = false
listeners.ws.default.enable = false

# A device has shown its certificate and gives no password; people are in the built-in database.
listeners.ssl.default.enable_authn = false
authentication = [
  {{ mechanism = password_based, backend = built_in_database, user_id_type = username,
    password_hash_algorithm {{ name = pbkdf2, mac_fun = sha512, iterations = 1000, dk_length = 64 }} }}
]

# What rules.json does not name is forbidden.
authorization {{
  no_match = deny
  deny_action = ignore
  sources = [{{ type = built_in_database, enable = true }}]
}}

retainer {{
  enable = true
  max_payload_size = 1MB
  backend {{ type = built_in_database, storage_type = disc }}
}}
"""


def emqx_rules(setup: Setup) -> bytes:
    """``rules.json``: for ``POST /api/v5/authorization/sources/built_in_database/rules/users``.

    Whoever is revoked is not in it; take his rules away with ``DELETE …/rules/users/NAME``.
    """
    users: list[dict[str, Any]] = []
    for device, user in sorted(setup.devices.items()):
        users.append({"username": user, "rules": [*_rules(setup.site, device)]})
    for site, user in sorted(setup.bridges.items()):
        users.append({"username": user, "rules": [*_rules(site, None)]})
    for name, person in sorted(setup.people.items()):
        rules = [_rule("subscribe", f"{t.ROOT}/#")]
        if person.role == "operator":
            sites = (setup.site, *sorted(setup.bridges))
            rules += [_rule("publish", kind.filter(site=site)) for site in sites for kind in TO_DEVICES]
        users.append({"username": name, "rules": rules})
    return msgspec.json.format(msgspec.json.encode(users), indent=1) + b"\n"


def _rules(site: str, device: str | None) -> Iterator[dict[str, str]]:
    for kind in FROM_DEVICES:
        yield _rule("publish", kind.filter(site=site, device=device))
    for kind in TO_DEVICES:
        yield _rule("subscribe", kind.filter(site=site, device=device))


def _rule(action: str, topic: str) -> dict[str, str]:
    return {"topic": topic, "permission": "allow", "action": action}

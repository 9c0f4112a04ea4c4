"""How `watch` shows a fleet in the terminal: devices, cameras, alerts, events. Pictures only, no I/O."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from tinysight_contract.fleet import Device, Fleet
from tinysight_contract.messages import Event
from tinysight_contract.mqtt import Address

__all__ = ["EVENTS_SHOWN", "picture", "safe"]

EVENTS_SHOWN: Final = 10
ALERTS_SHOWN: Final = 10
_ONLINE: Final = {True: "[green]online[/]", False: "[red]offline[/]", None: "?"}
_TYPES: Final = {"start": "[green]start[/]", "update": "update", "end": "[dim]end[/]"}


def picture(fleet: Fleet, address: Address, recent: Iterable[Event]) -> Group:
    """All tables.

    Args:
        fleet: what is known.
        address: of the broker.
        recent: the last events, oldest first.
    """
    tables = [_devices(fleet, address), _cameras(fleet)]
    if any(device.alerts for device in fleet.devices.values()):
        tables.append(_alerts(fleet))
    return Group(*tables, _events(fleet, recent))


def safe(text: str) -> str:
    """Text from outside, with nothing in it that would colour or move the terminal."""
    return escape("".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text))


def account(fleet: Fleet) -> str:
    """How many events came, and what became of those that did not."""
    told = f"Events: {fleet.missing:,} of {fleet.events + fleet.missing:,} missing"
    figures = {"given up": fleet.given_up, "awaited": fleet.awaited, "replayed": fleet.replayed}
    return ", ".join([told, *(f"{count:,} {name}" for name, count in figures.items() if count)])


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", expand=True)
    for column in columns:
        table.add_column(column)
    return table


def _devices(fleet: Fleet, address: Address) -> Table:
    table = _table(f"Devices at {address}")
    for name in ("device", "state", "model", "runtime", "fps", "frame age p95", "waiting", "missing"):
        table.add_column(name, no_wrap=True)
    for (site, name), device in sorted(fleet.devices.items()):
        info, health = device.info, device.health
        flows = health.cameras.values() if health else []
        table.add_row(
            f"{site}/{name}",
            _ONLINE[device.online],
            safe(f"{info.bundle.name} {info.bundle.version} {info.bundle.scheme}") if info else "?",
            safe(f"{info.runtime.get('name', '?')} {info.runtime.get('version', '')}") if info else "?",
            f"{sum(flow.fps for flow in flows):.1f}" if health else "",
            f"{max((flow.frame_age_ms.p95 for flow in flows), default=0.0):.1f} ms" if health else "",
            str(health.outbox.depth) if health else "",
            str(device.account.missing),
        )
    return table


def _cameras(fleet: Fleet) -> Table:
    table = _table("Cameras", "camera", "state", "present now")
    for device in _in_order(fleet):
        for name, camera in sorted(device.cameras.items()):
            present = camera.counts.objects if camera.counts else {}
            shown = "  ".join(f"{label}:{count}" for label, count in present.items() if count)
            state = camera.status.state if camera.status else "?"
            table.add_row(f"{device.site}/{device.name}/{name}", state, safe(shown) or "nothing")
    return table


def _alerts(fleet: Fleet) -> Table:
    table = _table("Alerts", "device", "code", "what", "mend")
    standing = [(device, *each) for device in _in_order(fleet) for each in sorted(device.alerts.items())]
    for device, code, alert in standing[:ALERTS_SHOWN]:
        colour = "red" if alert.severity == "error" else "yellow"
        what, mend = safe(alert.what), safe(alert.mend)
        table.add_row(f"{device.site}/{device.name}", f"[{colour}]{code}[/]", what, mend)
    if len(standing) > ALERTS_SHOWN:
        table.caption = f"and {len(standing) - ALERTS_SHOWN} more"
    return table


def _events(fleet: Fleet, recent: Iterable[Event]) -> Table:
    table = _table(account(fleet), "time", "camera", "what", "label", "score", "age", "seq")
    for event in reversed(list(recent)):
        table.add_row(
            _clock(event.seen_at),
            f"{event.device}/{event.camera}",
            _TYPES[event.type] + (" [dim](replayed)[/]" if event.replayed else ""),
            safe(event.label),
            f"{event.score:.2f}",
            f"{event.track.age_s:.1f} s",
            str(event.seq),
        )
    return table


def _in_order(fleet: Fleet) -> list[Device]:
    return [device for _, device in sorted(fleet.devices.items())]


def _clock(at: datetime) -> str:
    try:
        return at.astimezone().strftime("%H:%M:%S")
    except (OverflowError, ValueError):  # the year 1 or 9999, in another time zone
        return "?"

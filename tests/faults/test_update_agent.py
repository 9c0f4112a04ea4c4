"""An agent is killed in each state of an update that it was asked for: it starts on what it had, and goes on."""

import subprocess
import time
from typing import Any

from tinysight_contract.messages import Desired, Event, EventType, Reported, encode
from tinysight_contract.topics import DesiredTopic
from tinysight_contract.updates import UpdateState


def test_an_agent_killed_in_each_state_of_an_update_goes_on_until_it_is_confirmed(
    device: Any, faulty: Any, serve: Any, ear: Any, mosquitto: Any, make_device: Any, eventually: Any, tell: Any
) -> None:
    release = device.shop.add(device.make(2), 2)
    first = device.store.boot().digest
    server = serve(device.shop.folder)
    payload = str(device.shop.payload(release.target).relative_to(device.shop.folder))
    server.always[payload] = faulty.Fault(silent="body", cut_after=100_000)
    agent = make_device(
        store=device.root,
        gate='source = "synthetic:belt"',
        more=f'[update]\nrepository = "{server.url}"\ntrial = "3s"',
    )
    agent.restart_s = 0.5
    ear.event(lambda event: event.type is EventType.START)
    wish = Desired(revision=1, bundle=release.digest, target=release.target)
    topic = str(DesiredTopic("plant-1", "cam-1"))
    ask = ["mosquitto_pub", "-p", str(mosquitto.port), "-q", "1", "-s", "-r", "-t", topic]
    subprocess.run(ask, input=encode(wish), check=True, timeout=20)

    part = device.store.part(release.digest)
    killed_s = 0.0
    states = (UpdateState.DOWNLOADING, UpdateState.VERIFIED, UpdateState.SELFTEST, UpdateState.TRIAL)
    for number, state in enumerate(states, start=1):
        until_s = time.monotonic() + 60
        begun = int(state in {UpdateState.SELFTEST, UpdateState.TRIAL})
        while (coming := device.store.state().candidate) is None or (coming.state, coming.attempts) != (state, begun):
            assert time.monotonic() < until_s, coming
            time.sleep(0.005)
        if state is UpdateState.DOWNLOADING:
            eventually(lambda: part.exists() and part.stat().st_size == 100_000)
        agent.kill()
        killed_s, status = agent.wait_end(number)
        assert status == -9
        now = device.store.state()
        assert now.candidate is not None
        assert (now.candidate.state, now.candidate.attempts) == (state, begun), "decided before it begins"
        assert device.store.boot().digest == first
        server.always.clear()

    def is_in(told: Reported) -> bool:
        return told.bundle == release.digest and told.update is not None and told.update.state is UpdateState.CONFIRMED

    well_s, _ = ear.wait(Reported, is_in)
    asked = [each.headers.get("range") for each in server.asked if each.path == payload]
    assert asked == [None, "bytes=100000-"]
    ear.event(lambda event: event.model.digest == release.digest, since_s=well_s)
    seen = {event.model.digest for _, event in ear.of(Event)}
    assert seen == {first, release.digest}
    eventually(lambda: device.store.state().wanted == {path.stem for path in (device.root / "bundles").iterdir()})
    device.check_runs(2)
    said = f"{', '.join(states)}: it starts on what it had, goes on, and `reported` says `confirmed`; 0 missing"
    tell("an agent killed in each state of an update", well_s=well_s - killed_s, published=said)

"""Topics are values with an inverse."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract import topics as t
from tinysight_contract.errors import ContractError
from tinysight_contract.messages import PAYLOADS

ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@st.composite
def any_topic(draw: st.DrawFn) -> t.Topic:
    kind = draw(st.sampled_from(t.TOPICS))
    return kind(**{spec.name: draw(ids) for spec in fields(kind)})


@given(any_topic())
def test_a_topic_survives_the_round_trip(topic: t.Topic) -> None:
    assert type(topic).parse(str(topic)) == topic
    assert t.parse(str(topic)) == topic


@given(st.text())
def test_any_text_is_a_topic_or_a_contract_error(text: str) -> None:
    try:
        topic = t.parse(text)
    except ContractError:
        return
    assert str(topic) == text


@pytest.mark.parametrize(
    ("kind", "text", "retained", "qos"),
    [
        (t.StatusTopic, "tinysight/v1/s/d/status", True, 1),
        (t.InfoTopic, "tinysight/v1/s/d/info", True, 1),
        (t.HealthTopic, "tinysight/v1/s/d/health", True, 0),
        (t.ModelTopic, "tinysight/v1/s/d/model", True, 0),
        (t.CameraStatusTopic, "tinysight/v1/s/d/camera/c/status", True, 1),
        (t.CountsTopic, "tinysight/v1/s/d/camera/c/counts", True, 1),
        (t.EventTopic, "tinysight/v1/s/d/camera/c/event", False, 1),
        (t.FrameTopic, "tinysight/v1/s/d/camera/c/frame", False, 0),
        (t.SnapshotTopic, "tinysight/v1/s/d/camera/c/snapshot/e1", False, 0),
        (t.AlertTopic, "tinysight/v1/s/d/alert/disk-full", True, 1),
        (t.DesiredTopic, "tinysight/v1/s/d/desired", True, 1),
        (t.ReportedTopic, "tinysight/v1/s/d/reported", True, 1),
        (t.CommandTopic, "tinysight/v1/s/d/cmd/restart", False, 1),
        (t.AckTopic, "tinysight/v1/s/d/ack/a1", False, 1),
    ],
)
def test_the_contract_of_each_topic(kind: type[t.Topic], text: str, retained: bool, qos: int) -> None:
    topic = t.parse(text)
    assert type(topic) is kind
    assert kind.RETAIN is retained
    assert qos == kind.QOS


def test_every_topic_is_in_the_table_and_all_but_pictures_have_a_payload() -> None:
    assert set(PAYLOADS) == set(t.TOPICS) - {t.SnapshotTopic}


@pytest.mark.parametrize("bad", ["", "A", "a b", "a/b", "+", "#", "-a", "a" * 64, "é", "a\n"])
def test_an_id_that_would_break_a_topic_is_refused(bad: str) -> None:
    with pytest.raises(ContractError, match="not a valid id"):
        t.StatusTopic("s", bad)


def test_no_other_file_builds_a_topic() -> None:
    root = Path(t.__file__).parents[2]
    offenders = [
        str(path.relative_to(root))
        for part in ("edge", "converters", "trainer", "deploy")
        for path in (root / part).rglob("*.py")
        if path.name != "topics.py"
        and re.search(r"tinysight/v1|\{[^}]*\}/(status|event|counts|info|health)", path.read_text())
    ]
    assert offenders == []

"""What is wrong with an agent's file is said: all of it, where, and what to do."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.errors import ConfigError
from tinysight_edge.config.compare import compare, read_leaf
from tinysight_edge.config.file import (
    MAX_BYTES,
    Checked,
    address_of,
    check_config,
    is_path,
    parse_config,
    read_config,
    secret_of,
)
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.config.words import redacted

BASE = """\
site = "plant-1"
device = "gate-1"
state = "state"
broker = {url = "mqtt://localhost"}
[model]
bundle = "a.bundle"
[cameras.gate]
source = "rtsp://h/1"
[cameras.gate.zones.dock]
polygon = [[0, 0], [1, 0], [1, 1], [0, 1]]
[cameras.gate.lines.door]
start = [0, 0]
end = [1, 1]
[cameras.belt]
source = "synthetic:belt"
"""


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Checked]:
    """Check a text as if it stood in a file beside a bundle."""
    (tmp_path / "a.bundle").touch()

    def checked(text: str, environ: dict[str, str] | None = None, labels: list[str] | None = None) -> Checked:
        source = tmp_path / "agent.toml"
        return parse_config(text.encode(), source=source, environ=environ or {}, labels=labels)

    return checked


def test_a_right_file_has_no_findings_and_absolute_paths(check: Callable[..., Checked], tmp_path: Path) -> None:
    text = BASE.replace("synthetic:belt", "clips").replace("[model]", "[model]\nthreads = 2")
    (tmp_path / "clips").mkdir()
    checked = check(text)
    assert checked.findings == ()
    config = checked.must()
    assert (config.state, config.model.bundle) == (tmp_path / "state", tmp_path / "a.bundle")
    assert config.cameras["belt"].source == str(tmp_path / "clips")
    assert config.cameras["gate"].source == "rtsp://h/1"
    assert config.model.threads == 2


@pytest.mark.parametrize("where", ["ftp://h/repo", "https://", "https://h/repo?x=1", "http://h:99999/"])
def test_an_address_from_which_nothing_could_be_fetched_is_refused(where: str, check: Callable[..., Checked]) -> None:
    (finding,) = check(f'{BASE}[update]\nrepository = "{where}"\n').findings
    assert (finding.key, finding.level, finding.line) == ("update.repository", "error", 17)
    assert check(f'{BASE}[update]\nrepository = "https://me:x@h:8443/repo"\n').findings == ()


def test_certificates_of_the_repository_that_are_not_there_yet_are_a_warning(check: Callable[..., Checked]) -> None:
    checked = check(f'{BASE}[update]\nrepository = "https://h/repo"\nca_file = "ca.pem"\n')
    (finding,) = checked.findings
    assert (finding.key, finding.level) == ("update.ca_file", "warning")
    assert "ca.pem cannot be read as certificates" in finding.what
    assert checked.config is not None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("fleet.example.com", "no address of the fleet's server"),
        ("ftp://fleet.example.com", "no address of the fleet's server"),
        ("https://", "no address of the fleet's server"),
        ("https://fleet.example.com/?x=1", "no address of the fleet's server"),
        ("https://fleet.example.com:0", "no address of the fleet's server"),
        ("http://127.0.0.1\\\\.example.com", "no address of the fleet's server"),
        ("https://me:hush@fleet.example.com", "The address holds a login. Use token_file."),
        ("http://fleet.example.com", "could be read on the way. Use https://"),
        ("http://10.0.0.1:8080", "could be read on the way. Use https://"),
        ("http://localhost.example.com", "could be read on the way. Use https://"),
        ("http://2130706433", "could be read on the way. Use https://"),
    ],
)
def test_a_token_is_sent_to_nobody_who_could_be_read_along(url: str, said: str, check: Callable[..., Checked]) -> None:
    (finding,) = check(f'{BASE}[fleet]\nurl = "{url}"\n').findings
    assert (finding.key, finding.level, finding.line) == ("fleet.url", "error", 17)
    assert said in f"{finding.what} {finding.mend}"
    assert "hush" not in f"{finding.what} {finding.mend}"


@pytest.mark.parametrize(
    "url", ["https://fleet.example.com", "https://[2001:db8::1]:8443/tiny/", "http://localhost:8080", "http://[::1]:80"]
)
def test_a_fleets_server_is_reached_by_tls_or_within_this_machine(url: str, check: Callable[..., Checked]) -> None:
    assert check(f'{BASE}[fleet]\nurl = "{url}"\n').findings == ()


def test_a_device_runs_without_its_token_and_its_servers_certificates(
    check: Callable[..., Checked], tmp_path: Path
) -> None:
    text = f'{BASE}[fleet]\nurl = "https://h"\ntoken_file = "token"\nca_file = "ca.pem"\n'
    checked = check(text)
    found = [(each.key, each.level) for each in checked.findings]
    assert found == [("fleet.token_file", "warning"), ("fleet.ca_file", "warning")]
    fleet = checked.must().fleet
    assert fleet is not None
    assert (fleet.token_file, fleet.ca_file) == (tmp_path / "token", tmp_path / "ca.pem")
    (tmp_path / "token").write_text("x")
    (tmp_path / "token").chmod(0o644)
    assert "chmod o-r" in check(text).findings[0].mend


WRONG = [
    ("site = \"plant-1\"", "site = \"Plant 1\"", 1, "site", "\"Plant 1\" does not fit here. Write an id"),
    ("site = \"plant-1\"", "", 0, "site", "It is missing. Write an id"),
    ("state =", "trial = 30\nstate =", 3, "trial", "Write a time with its unit, such as '20s', from 1s to 1d."),
    ("state =", "trial = \"2d\"\nstate =", 3, "trial", "\"2d\" does not fit here."),
    ("state =", "colour = 1\nstate =", 3, "colour", "Nobody knows this key. Known are broker, cameras"),
    ("url = ", "urls = \"\", url = ", 4, "broker.urls", "Did you mean 'broker.url'?"),
    ("mqtt://localhost", "http://localhost", 4, "broker.url", "Write it as mqtt:"),
    ("[model]", "[model]\nthreads = 0", 6, "model.threads", "0 does not fit here. Write a whole number from 1 to 64."),
    ("[model]", "[model]\nthreads = true", 6, "model.threads", "True or false does not fit here."),
    ("[model]", "[model]\nengine = \"atuo\"", 6, "model.engine", "Did you mean 'auto'?"),
    ("[model]", "[model]\nstore = \".\"", 5, "model", "It has both store and bundle. Give one of them."),
    ("bundle = \"a.bundle\"", "", 5, "model", "It has neither store nor bundle."),
    ("a.bundle", "b.bundle", 6, "model.bundle", "There is no bundle"),
    ("bundle = \"a.bundle\"", "store = \"s\"", 6, "model.store", "There is no store"),
    ("source = \"rtsp", "rotate = 45\nsource = \"rtsp", 8, "cameras.gate.rotate", "Write one of 0, 90, 180, 270."),
    ("source = \"rtsp", "motion = 3\nsource = \"rtsp", 8, "cameras.gate.motion", "3 does not fit here. Write a table."),
    ("source = \"rtsp", "max_fps = inf\nsource = \"rtsp", 8, "cameras.gate.max_fps", "Inf does not fit here."),
    ("source = \"rtsp", "state = \"x\"\nsource = \"rtsp", 8, "cameras.gate.state", "put it above the first [table]"),
    ("source = \"rtsp://h/1\"", "source = \" \"", 8, "cameras.gate.source", "It is empty."),
    ("rtsp://h/1", "rtsp:///1", 8, "cameras.gate.source", "This is no address."),
    ("rtsp://h/1", "rtps://h/1", 8, "cameras.gate.source", "Unknown source rtps://. Give a camera's number"),
    ("rtsp://h/1", "rtsp://h/a b", 8, "cameras.gate.source", "cannot be understood"),
    ("rtsp://h/1", "picamera2:11", 8, "cameras.gate.source", "Unknown source 'picamera2:11'."),
    ("rtsp://h/1", "picamera2?fps=x", 8, "cameras.gate.source", "does not take fps=x"),
    ("rtsp://h/1", "/dev/video1000", 8, "cameras.gate.source", "Unknown source '/dev/video1000'."),
    ("synthetic:belt", "synthetic:bellt", 15, "cameras.belt.source", "no synthetic source 'bellt'"),
    ("synthetic:belt", "synthetic:belt?speed=1", 15, "cameras.belt.source", "does not take speed=1"),
    ("source = \"rtsp", "crop = [0.5, 0, 0.5, 1]\nsource = \"rtsp", 8, "cameras.gate.crop", "It has no area."),
    ("source = \"rtsp", "crop = [0, 0,\n2, 1]\nsource = \"rtsp", 9, "cameras.gate.crop[2]", "a number from 0 to 1"),
    ("source = \"rtsp", "crop = [0, 1]\nsource = \"rtsp", 8, "cameras.gate.crop", "It has 2 entries, not 4."),
    ("[1, 1], [0, 1]]", "[0, 1], [1, 1]]", 10, "cameras.gate.zones.dock.polygon", "Its edges 1 and 3 cross or touch."),
    ("[1, 1], [0, 1]]", "[0.5, 0]]", 10, "cameras.gate.zones.dock.polygon", "It has no area."),
    ("[0, 1]]", "[0, 1], [0, 0]]", 10, "cameras.gate.zones.dock.polygon[0]", "a polygon closes by itself"),
    ("[0, 1]]", "[0, nan]]", 10, "cameras.gate.zones.dock.polygon[3][1]", "Nan does not fit here."),
    ("[1, 1], [0, 1]]", "]", 10, "cameras.gate.zones.dock.polygon", "It has 2 entries, not 3 to 64."),
    ("zones.dock", "zones.Dock", 9, "cameras.gate.zones.Dock", "Write an id"),
    ("end = [1, 1]", "end = [0, 0]", 11, "cameras.gate.lines.door", "It ends where it starts."),
    ("source = \"rtsp", "password_env = \"P\"\nusername = \"u\"\nsource = \"rtsp", 8, "cameras.gate.password_env",
     "The environment has no P"),
    ("source = \"syn", "username = \"u\"\nsource = \"syn", 15, "cameras.belt.username", "Only an address has a login."),
    ("source = \"rtsp", "password_file = \"p\"\nusername = \"u\"\nsource = \"rtsp", 8, "cameras.gate.password_file",
     "cannot be read: No such file"),
    ("[cameras.belt]", "[rules.a]\ncameras = [\"gaet\"]\n[cameras.belt]", 15, "rules.a.cameras[0]",
     "No camera 'gaet'. Did you mean 'gate'?"),
    ("[cameras.belt]", "[rules.a]\nzones = [\"dok\"]\n[cameras.belt]", 15, "rules.a.zones[0]", "Did you mean 'dock'?"),
    ("[cameras.belt]", "[rules.a]\nlines = [\"dor\"]\n[cameras.belt]", 15, "rules.a.lines[0]", "Did you mean 'door'?"),
    ("[cameras.belt]", "[rules.a]\ncameras = [\"belt\"]\nzones = [\"dock\"]\n[cameras.belt]", 16, "rules.a.zones[0]",
     "No zone 'dock' of its cameras. There is no zone."),
    ("[cameras.belt]", "[rules.a.schedule]\nstart = \"24:00\"\n[cameras.belt]", 15, "rules.a.schedule.start",
     "Write a time of day such as '07:30'."),
    ("[cameras.belt]", "[rules.a.schedule]\nend = \"08:00\\n\"\n[cameras.belt]", 15, "rules.a.schedule.end", "'24:00'"),
    ("[cameras.belt]", "[rules.a.schedule]\nend = \"00:00\"\n[cameras.belt]", 15, "rules.a.schedule.end", "the whole"),
    ("[cameras.belt]", "[rules.a.schedule]\ndays = []\n[cameras.belt]", 15, "rules.a.schedule.days", "names no day"),
    ("[cameras.belt]", "[snapshots]\nkeep = 5\n[cameras.belt]", 15, "snapshots.keep", "such as '512MiB', from 1MiB"),
    ("[cameras.belt]", "[health]\nevery = 1979-05-27\n[cameras.belt]", 15, "health.every", "A date or a time does not"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "instead", "line", "key", "said"), WRONG, ids=[f"{w[3]}: {w[4][:30]}" for w in WRONG])
def test_one_wrong_thing_is_one_finding_with_its_place_and_its_mend(
    part: str, instead: str, line: int, key: str, said: str, check: Callable[..., Checked], tmp_path: Path
) -> None:
    assert BASE.count(part) == 1
    checked = check(BASE.replace(part, instead))
    assert checked.config is None
    (finding,) = checked.findings
    assert (finding.line or 0, finding.key) == (line, key)
    assert said in f"{finding.what} {finding.mend}"
    place = f"{tmp_path / 'agent.toml'}{f':{line}' if line else ''}: {key}: "
    with pytest.raises(ConfigError) as told:
        checked.must()
    assert str(told.value).startswith(place)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        pytest.param("a = 1\nb = \n", 2, "no TOML: Invalid value", id="no value"),
        pytest.param("a = 1\na = 2\n", 2, "no TOML: Cannot overwrite a value", id="a key twice"),
        pytest.param("a = 1\n[b\nc = 2\n", 2, "no TOML", id="half a header"),
        pytest.param('a = 1\nb = "open', 2, "no TOML", id="an open text at the end"),
        pytest.param("a = " + "[" * 90_000, None, "too deep", id="a deep list"),
        pytest.param("a = " + "9" * 5000, 1, "no TOML", id="a number without end"),
        pytest.param("#" * MAX_BYTES + "\n", None, "more than 256 KiB", id="too large"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(
    text: str, line: int | None, said: str, check: Callable[..., Checked]
) -> None:
    (finding,) = check(text).findings
    assert finding.line == line
    assert said in finding.what


def test_lists_of_any_depth_are_answered(check: Callable[..., Checked]) -> None:
    for depth in range(300, 600, 3):
        assert check("a = " + "[" * depth + "]" * depth).errors


def test_bytes_that_are_no_text_are_refused_with_their_line(tmp_path: Path) -> None:
    (finding,) = parse_config(b"a = 1\nb = '\xff'", source=tmp_path / "a.toml", environ={}).findings
    assert (finding.line, finding.what) == (2, "It is not UTF-8.")


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir], ids=["missing", "a folder"])
def test_a_file_that_cannot_be_read_is_a_finding(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "agent.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "agent.toml", environ={})


def test_all_findings_are_told_and_one_typo_hides_nothing_else(check: Callable[..., Checked]) -> None:
    text = BASE.replace("[0, 1]]", "[0, 1], [0, 0]]").replace("end = [1, 1]", "end = [0, 0]\nwdth = 3")
    text = text.replace("[model]", "[model]\ncolour = 1")
    checked = check(text)
    assert [each.key for each in checked.findings] == [
        "model.colour",
        "cameras.gate.zones.dock.polygon[0]",
        "cameras.gate.lines.door",
        "cameras.gate.lines.door.wdth",
    ]
    with pytest.raises(ConfigError, match=r"3 more: run `tinysight config check .*agent\.toml`\.$"):
        checked.must()


def test_labels_are_checked_when_the_model_is_known(check: Callable[..., Checked]) -> None:
    text = BASE.replace("polygon", 'labels = ["cat", "dgo"]\npolygon') + '[rules.a]\nlabels = ["cow"]\n'
    assert check(text).findings == ()
    found = check(text, labels=["cat", "dog"]).findings
    assert [(each.line, each.key) for each in found] == [
        (10, "cameras.gate.zones.dock.labels[1]"),
        (18, "rules.a.labels[0]"),
    ]
    assert found[0].mend == "Did you mean 'dog'?"


def test_paths_that_the_system_refuses_to_look_up_are_not_there(check: Callable[..., Checked]) -> None:
    long = "x" * 300
    text = BASE.replace("a.bundle", long).replace("synthetic:belt", long)
    assert [each.key for each in check(text).findings] == ["model.bundle", "cameras.belt.source"]
    text = BASE.replace('bundle = "a.bundle"', f'store = "{long}"')
    assert [each.key for each in check(text).findings] == ["model.store"]


HIDDEN = "hunter2"
LEAKS = [
    f'broker = {{url = "mqtt://u:{HIDDEN}@h"}}',
    f'broker = {{url = "mqtt://u:{HIDDEN}/x@h"}}',
    f'broker = {{url = ["mqtt://u:{HIDDEN}@h"]}}',
    f'broker = {{url = "mqtt://h", password = "{HIDDEN}"}}',
    f'broker = {{url = "mqtt://h", start_offline = "mqtt://u:{HIDDEN}@h"}}',
    f'cameras.gate.source = "rtsp://u:{HIDDEN}@h"',
    f'cameras.gate.source = "rtsp://u:{HIDDEN}#x@h"',
    f'cameras.gate.source = "rtsp://u:{HIDDEN}@[h"',
    f'cameras.gate.transport = "rtsp://u:{HIDDEN}@h"',
    f'cameras.gate.read_timeout = "rtsp://u:{HIDDEN}@h"',
    f'cameras.gate.max_fps = "rtsp://u:{HIDDEN}@h"',
    f'site = "rtsp://u:{HIDDEN}@h"',
    f'site = "rtsp://h/?a=1&token={HIDDEN}"',
    f'site = "rtsp://h/user=admin_password={HIDDEN}_channel=1_stream=0.sdp"',
    f'site = "rtsp://h/password={HIDDEN}&user=me"',
    f'site = "rtsp://h/user={HIDDEN}&password=it"',
    f'site = "http://h/v?pw={HIDDEN}"',
    f'site = "http://h/v?usr={HIDDEN}&pwd=x#{HIDDEN}"',
    f'site = "http://h/v?pw=_{HIDDEN}_/{HIDDEN}"',
    f'site = "rtsp://u:{HIDDEN}{"x" * 60}@h"',
    f'cameras = ["rtsp://u:{HIDDEN}@h"]',
]


@pytest.mark.parametrize("text", LEAKS)
def test_no_finding_repeats_a_password(text: str, check: Callable[..., Checked]) -> None:
    checked = check(text)
    assert checked.errors
    assert HIDDEN not in repr(checked.findings)


@pytest.mark.parametrize("scheme", ["", "rtps://", "rtsp:/"])
def test_a_source_of_no_kind_is_not_repeated_with_its_password(scheme: str, check: Callable[..., Checked]) -> None:
    (finding,) = check(BASE.replace("rtsp://h/1", f"{scheme}me:{HIDDEN}@10.0.0.9/v")).findings
    assert (finding.level, finding.key) == ("error", "cameras.gate.source")
    assert HIDDEN not in repr(finding)


def test_what_is_no_secret_stays_in_an_address() -> None:
    text = "rtsp://h/user=admin_password=tlJw_pbo6_channel=1_stream=0.sdp?real_stream=2"
    assert redacted(text) == "rtsp://h/user=***_password=***_channel=1_stream=0.sdp?real_stream=2"
    assert redacted("http://h/v?pw=a;b&fps=5 and more") == "http://h/v?pw=***&fps=5 and more"
    assert redacted("/videos/by_user/a.mp4") == "/videos/by_user/a.mp4"


@pytest.mark.parametrize("url", ["rtsp://u:p@h/1", "rtsp://u@h/1", "http://u:p/@h"])
def test_a_login_in_an_address_is_refused_with_the_way_to_do_it(url: str, check: Callable[..., Checked]) -> None:
    (finding,) = check(BASE.replace("rtsp://h/1", url)).findings
    assert finding.what == "The address holds a login."
    assert "password_file or password_env" in finding.mend


def test_a_password_comes_from_a_file_or_from_the_environment(check: Callable[..., Checked], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("p@ss word\n")
    (tmp_path / "secret").chmod(0o600)
    login = 'url = "mqtt://localhost", username = "u", '
    by_file = check(BASE.replace('url = "mqtt://localhost"', login + 'password_file = "secret"'))
    by_env = check(BASE.replace('url = "mqtt://localhost"', login + 'password_env = "P"'), {"P": "p@ss word"})
    for checked, environ in ((by_file, {}), (by_env, {"P": "p@ss word"})):
        assert checked.findings == ()
        address = address_of(checked.must().broker, environ)
        assert (address.user, address.password) == ("u", "p@ss word")


def test_a_file_that_everybody_may_read_is_warned_of_and_runs(check: Callable[..., Checked], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o644)
    checked = check(BASE.replace("url =", 'username = "u", password_file = "secret", url ='))
    (finding,) = checked.findings
    assert (finding.level, finding.line) == ("warning", 4)
    assert "chmod o-r" in finding.mend
    assert checked.config is not None


def test_a_path_that_holds_a_nul_is_a_finding(check: Callable[..., Checked]) -> None:
    nul = 'password_file = "a\\u0000b"'
    text = BASE.replace("url =", f'username = "u", {nul}, url =')
    text = text.replace("[cameras.gate]", f'[cameras.gate]\nusername = "u"\n{nul}').replace('"state"', '"s\\u0000t"')
    found = [(each.level, each.key) for each in check(text).findings]
    assert found == [("error", key) for key in ("state", "broker.password_file", "cameras.gate.password_file")]


@pytest.mark.parametrize("content", [b"", b"\n", b"a\nb", b"a\0", b"\xff", b"x" * 5000])
def test_what_is_no_password_is_refused_without_being_shown(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match=r"secret holds no password\. Write the password into it"):
        secret_of(tmp_path / "secret", None, {})


def test_two_passwords_and_a_password_without_a_user_are_told(check: Callable[..., Checked], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o600)
    text = BASE.replace("url =", 'password_env = "P", password_file = "secret", url =')
    found = check(text, {"P": "p"}).findings
    assert {each.what for each in found} == {"There are two passwords.", "A password needs a user."}
    assert secret_of(None, None, {}) is None


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("0", False), ("/dev/video2", False), ("rtsp://h", False), ("synthetic:belt?seed=1", False),
        ("picamera2", False), ("picamera2?width=640", False), ("clip.mp4", True), ("pictures/", True), ("/a/b", True),
    ],
)  # fmt: skip
def test_a_path_is_told_from_an_address(source: str, path: bool) -> None:
    assert is_path(source) is path


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1s", "1MiB"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["source", "zones", "x"]), inner),
    max_leaves=8,
)


@given(st.data())
def test_what_compares_without_a_finding_is_what_msgspec_takes(data: st.DataObject) -> None:
    tree: dict[str, Any] = tomllib.loads(BASE)
    path = data.draw(
        st.sampled_from([("site",), ("trial",), ("model",), ("cameras",), ("cameras", "gate"), ("rules",),
                         ("cameras", "gate", "crop"), ("cameras", "gate", "zones", "dock", "polygon"),
                         ("cameras", "gate", "motion"), ("model", "threads"), ("snapshots",)])
    )  # fmt: skip
    place = tree
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = data.draw(JUNK)
    found: list[Any] = []
    compare(tree, AgentConfig, (), found)
    try:
        msgspec.convert(tree, AgentConfig, dec_hook=read_leaf)
    except msgspec.ValidationError:
        assert found
    else:  # what only we refuse: numbers that are not finite, times and sizes out of their limits
        assert all("does not fit here" in each.what for each in found)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_answered_with_findings(raw: bytes) -> None:
    checked = parse_config(raw, source=Path("agent.toml"), environ={})
    assert checked.config is None
    assert checked.errors


def test_the_example_is_right_and_its_labels_are_its_models(belt_bundle: Path) -> None:
    from tinysight_contract.bundle import Bundle

    path = Path(__file__).parents[2] / "examples" / "agent.toml"
    checked = check_config(path, environ={}, labels=Bundle.open(belt_bundle).manifest.labels)
    assert checked.findings == ()
    assert checked.must().model.bundle is not None

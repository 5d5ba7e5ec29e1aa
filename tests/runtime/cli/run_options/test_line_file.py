"""A line's file and the flags of kanoclip-run say the same things; what is wrong in the file is named with its line."""

from __future__ import annotations

import json
from dataclasses import replace

import click
import pytest

from kanoclip.runtime.cli.main import load_command
from kanoclip.runtime.cli.run_options.decisions import DecisionOptions
from kanoclip.runtime.cli.run_options.fields import given_flags, options_of
from kanoclip.runtime.cli.run_options.inputs import Inputs, SourceOptions
from kanoclip.runtime.cli.run_options.kinds import Number, OneOf, PathName, Size, Switch, Texts
from kanoclip.runtime.cli.run_options.line_file import GROUPS, TABLES, LineConfig, read_line
from kanoclip.runtime.cli.run_options.secrets import Secret, SecretText, Url
from kanoclip.runtime.cli.run_options.sinks.by_type import SINKS
from kanoclip.runtime.cli.run_options.sinks.files import ImagesOptions, VideoOptions
from kanoclip.runtime.cli.run_options.sinks.outputs import Outputs
from kanoclip.runtime.detect.settings.settings_file import KEYS, read_settings
from kanoclip.runtime.errors import SettingsError

SQUARE = [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]
ABOUT_THE_CALL = {"--config", "--print-config", "--debug"}
"""Flags about one call of the command, which no line's file has."""
IN_THE_FILE_ALONE = {"name", "user", "password", "token", "secret"}
"""Keys without a flag: environment variables hold the secrets there."""
SPECIAL = {
    "--camera": "0",
    "--backend": "onnxruntime",
    "--device": "cpu",
    "--alarm": "3/5/1",
    "--jsonl": "x.jsonl",
    "--shifts": "5:30",
}
ADDRESSES = {"--source": "test://?fps=5", "--mqtt": "mqtt://broker/line3", "--webhook": "http://receiver/hook"}
NEEDED = {
    "video": ("--output", "/out/x.mp4"),
    "images": ("--output", "/out"),
    "jsonl": ("--jsonl", "x.jsonl"),
    "snapshots": ("--snapshots", "/ring"),
    "mqtt": ("--mqtt", ADDRESSES["--mqtt"]),
    "webhook": ("--webhook", ADDRESSES["--webhook"]),
}
OPTIONS = [(group, one) for group in GROUPS for one in options_of(group).values() if one.flag is not None]


def from_flags(*arguments):
    with load_command("run").make_context("kanoclip-run", list(map(str, arguments))) as ctx:
        return LineConfig().overridden(given_flags(ctx, GROUPS))


@pytest.fixture
def write(tmp_path):
    (tmp_path / "belt.json").write_text(json.dumps({"units": "relative", "keep": [SQUARE]}))

    def write(text):
        path = tmp_path / "line.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def sample(one, folder):
    """(arguments, the key's value in TOML)."""
    kind, flag = one.kind, one.flag
    if isinstance(kind, Switch):
        on = not one.default
        return [flag.split("/")[0 if on else -1]], "true" if on else "false"
    text = SPECIAL.get(flag, "127.0.0.1:8080")
    if isinstance(kind, Number):
        text = "9" if kind.whole else "0.5" if kind.maximum else "2.5"
        return [flag, text], text
    if isinstance(kind, OneOf):
        text = kind.members[-1].value
    elif isinstance(kind, PathName):
        text = str(folder / "belt.json") if flag == "--roi" else "/out/x.mp4"
    elif isinstance(kind, Size):
        text = "3M"
    elif isinstance(kind, Url):
        text = ADDRESSES[flag]
    elif isinstance(kind, SecretText):
        return [flag, "/token"], '{ file = "/token" }'
    return [flag, text], json.dumps([text] if isinstance(kind, Texts) else text)


def test_every_flag_has_its_key_and_every_key_its_flag():
    options = [param for param in load_command("run").params if isinstance(param, click.Option)]
    flags = {"/".join([*param.opts, *param.secondary_opts]) for param in options}
    assert flags - ABOUT_THE_CALL == {one.flag for _, one in OPTIONS}
    assert {one.key for group in GROUPS for one in options_of(group).values() if one.flag is None} == IN_THE_FILE_ALONE
    assert set(GROUPS) == {SourceOptions, DecisionOptions, *TABLES.values(), *SINKS.values()}


@pytest.mark.parametrize(("group", "one"), OPTIONS, ids=lambda value: getattr(value, "flag", ""))
def test_flag_and_key_say_the_same(group, one, write, tmp_path):
    arguments, value = sample(one, tmp_path)
    table, extra = next((f"[{name}]" for name, own in TABLES.items() if own is group), "[decision]"), {}
    if group is SourceOptions:
        table = "[[source]]"
        if one.key not in ("camera", "url"):
            arguments, extra = ["--source", "test://", *arguments], {"url": "test://"}
    if group in SINKS.values():
        name = next(name for name, own in SINKS.items() if own is group)
        flag, needed = NEEDED[name]
        key = next(iter(options_of(group).values())).key
        table, extra = "[[sink]]", {"type": name} | ({} if one.key == key else {key: needed})
        if one.flag == flag:
            arguments, value = [flag, needed], json.dumps(needed)
        else:
            arguments = [flag, needed, *arguments]
    lines = [table, f"{one.key} = {value}", *(f"{key} = {json.dumps(text)}" for key, text in extra.items())]
    path = write("\n".join(lines))
    if group is DecisionOptions:
        assert read_settings(path).common == from_flags(*arguments).decision.over(None).flags
        return
    from_file, given = replace(read_line(path), path=None), from_flags(*arguments)
    assert from_file == given != LineConfig()
    assert LineConfig().overridden({}) == LineConfig()


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [
        ("threshold", 0, True), ("threshold", 1, True), ("threshold", 1.01, False), ("threshold", -0.01, False),
        ("pixel_threshold", 1, True), ("pixel_threshold", 1.01, False), ("threshold", "nan", False),
        ("min_area", 0, True), ("min_area", -1, False), ("min_area", 1.5, False),
        ("alarm", '"3/5"', True), ("alarm", '"5/3"', False), ("alarm", '"x"', False),
    ],
)  # fmt: skip
def test_decisions_have_the_same_ranges_by_flag_and_by_file(key, value, good, write):
    assert set(KEYS) == {one.key for one in options_of(DecisionOptions).values()}
    flag = next(one.flag for one in options_of(DecisionOptions).values() if one.key == key)
    path = write(f"[decision]\n{key} = {value}")
    if good:
        assert read_line(path).path == path and from_flags(flag, str(value).strip('"')).decision != DecisionOptions()
        return
    with pytest.raises(SettingsError, match=f"line 2: {key}"):
        read_line(path)
    with pytest.raises(click.BadParameter):
        from_flags(flag, str(value).strip('"'))


SINK = '[[sink]]\ntype = "mqtt"\n'
SECRET = "s3cret"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        # Keys
        ("[runn]\nquiet = true", 1, ["unknown key 'runn'", "did you mean run?"]),
        ("[run]\nquite = true", 2, ["unknown key 'quite' in [run]", "did you mean quiet?"]),
        ("[[source]]\nurl = 'a'\n[[source]]\nurl = 'b'\nnmae = 'x'", 5, ["unknown key 'nmae' in [source]", "name?"]),
        (SINK + "url = 'mqtt://h/t'\n[[sink]]\ntype = 'jsonl'\npath = 'x'\nrotate = 3", 7, ["'rotate'", "keep"]),
        ("[service]\nhealthy = '127.0.0.1:1'", 2, ["did you mean health?"]),
        ("page.surve = '127.0.0.1:1'", 1, ["did you mean serve?"]),
        ("source = [{url = 'a'}, {ulr = 'b'}]", 1, ["'ulr'", "did you mean url?"]),
        ("[[sink]]\ntype = 'webhok'", 2, ["'webhok' is unknown", "did you mean webhook?"]),
        ("[[sink]]\npath = 'x'", 1, ["[[sink]] needs a type", "images, jsonl, mqtt, snapshots, video, webhook"]),
        ("[[sink]]\ntype = 'jsonl'", 1, ["the jsonl sink has no path", "add path"]),
        (SINK, 1, ["the mqtt sink has no url"]),
        ("[[source]]\nname = 'x'", 1, ["either camera or url"]),
        ("\n[[source]]\nurl = 'x'\ncamera = 0", 2, ["either camera or url"]),
        # Twice
        ("[run]\nquiet = true\nquiet = false", 3, ["quiet is there twice", "keep one"]),
        ("[run]\n[page]\n[run]", 3, ["[run] is there twice", "keep one"]),
        ("[run]\nquiet = ", 2, ["not TOML"]),
        # Types
        ("[source]\nurl = 'x'", 1, ["write [[source]], in double brackets"]),
        ("sink = 3", 1, ["write [[sink]]"]),
        ("[[run]]\nquiet = true", 1, ["run is no table: write [run]"]),
        ("[run]\nquiet = 'yes'", 2, ["quiet: 'yes' is not true or false"]),
        ("[run]\nmax_frames = 1.5", 2, ["max_frames: 1.5 is not a whole number from 1"]),
        ("[run]\nmax_frames = true", 2, ["True is not a whole number"]),
        ("[engine]\nclass = 3", 2, ["class: 3 is not a text in quotes"]),
        ("[page]\nallow_host = 'a'", 2, ["list of texts"]),
        ("[[sink]]\ntype = 'jsonl'\npath = 'x'\nmax_bytes = 'lots'", 4, ["'lots' is no size such as 500M"]),
        ("[[sink]]\ntype = 'jsonl'\npath = ['x']", 3, ["path:", "not a text"]),
        ("[[sink]]\ntype = 'jsonl'\npath = 'x'\n[sink.keep]\na = 1", 4, ["keep: {'a': 1} is not a whole number"]),
        # Ranges
        ("[run]\nmax_frames = 0", 2, ["0 is not a whole number from 1"]),
        ("[[source]]\nurl = 'x'\nstall_timeout = -1", 3, ["-1.0 is not a number from 0"]),
        ("[[source]]\nurl = 'x'\nstall_timeout = nan", 3, ["NaN is not a number from 0"]),
        ("[service]\nmax_frame_age = 0", 2, ["is not a number above 0"]),
        ("[service]\nhealth = '127.0.0.1'", 2, ["give HOST:PORT"]),
        ("[service]\nlog_format = 'jsn'", 2, ["did you mean json?"]),
        ("[run]\npolicy = 'wiat'", 2, ["did you mean wait?"]),
        ("[engine]\nbackend = 'abacus'", 2, ["unknown backend 'abacus'", "onnxruntime"]),
        ("[engine]\ndevice = 'tpu'", 2, ["'tpu' is not auto, cpu, cuda"]),
        ("[[source]]\ncamera = 'front'", 2, ["'front' is not a camera"]),
        ("[decision]\nthreshold = 2", 2, ["threshold: 2 is not a number from 0 to 1"]),
        # Secrets
        (SINK + f"url = 'mqtt://h/t'\npassword = '{SECRET}'", 4, ["password: a secret in plain text", "{ env = "]),
        (SINK + f"url = 'mqtt://me:{SECRET}@h/t'", 3, ["url: a secret in plain text", "{ file = "]),
        (f"[[source]]\nurl = 'rtsp://me:{SECRET}@h/x'", 2, ["url: a secret in plain text"]),
        (f"[[source]]\nurl = 'http://h/x?token={SECRET}'", 2, ["url: a secret in plain text"]),
        (f"[[source]]\nurl = 'gst://rtspsrc location=rtsp://h user-pw={SECRET} ! x'", 2, ["a secret in plain text"]),
        (f"[[sink]]\ntype = 'webhook'\nurl = 'http://h'\nsecret = '{SECRET}'", 4, ["secret: a secret in plain text"]),
        (f"[page]\nserve = '127.0.0.1:1'\ntoken = '{SECRET}'", 3, ["token: a secret in plain text"]),
        (f"[page]\ntoken = {{ evn = '{SECRET}' }}", 2, ["token: write it as { env = "]),
        (f"[page]\ntoken = ['{SECRET}']", 2, ["token: write it as { env = "]),
        (f"[page]\ntoken = '{SECRET}'\ntoken = '{SECRET}'", 3, ["token is there twice"]),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_the_remedy(write, text, line, words):
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        read_line(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {line}: ") and len(message.splitlines()) == 1
    assert SECRET not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            "[[source]]\nurl = 'test://?fps=3'\n[[source]]\nurl = 'test://?fps=3'",
            3,
            ["test://?fps=3 is given twice", "leave one out"],
        ),
        ("[[source]]\ncamera = 0\n\n[[source]]\ncamera = '0'", 4, ["camera 0 is given twice"]),
        ("[[source]]\nurl = 'a'\nname = 'x'\n[[source]]\nurl = 'b'\nname = 'x'", 4, ["the name 'x' is given twice"]),
        (
            "[[sink]]\ntype = 'jsonl'\npath = 'x'\n[[sink]]\ntype = 'jsonl'\npath = './x'",
            4,
            ["two sinks cannot write to ./x", "line 1 does", "its own path"],
        ),
        ("[[sink]]\ntype = 'images'\npath = 'o'\n[[sink]]\ntype = 'snapshots'\npath = 'o/'", 4, ["two sinks"]),
        ("[[sink]]\ntype = 'jsonl'\npath = '-'\n[[sink]]\ntype = 'jsonl'\npath = '-'", 4, ["two sinks"]),
        ("\n[[sink]]\ntype = 'jsonl'\npath = 'line.toml'", 2, ["the line's own file"]),
        ("[[sink]]\ntype = 'video'\npath = 'x.avi'", 1, [".mp4 only"]),
    ],
)
def test_what_contradicts_itself_is_named_with_its_line(write, monkeypatch, text, line, words):
    path = write(text)
    monkeypatch.chdir(path.parent)
    config = read_line(path)
    with pytest.raises(click.UsageError) as caught:
        Outputs(config.sinks, None, None).check(config.path)
        Inputs(config.sources).check()
    assert caught.value.message.startswith(f"{path}, line {line}: "), caught.value.message
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "not TOML"),
        (lambda path: path.write_text("\0"), "not TOML"),
        (lambda path: path.write_text("[" * 100_000), "not TOML"),
        (lambda path: path.write_bytes(b"#" * (2 << 20)), "over 1 MiB"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, make, words):
    path = tmp_path / "line.toml"
    make(path)
    with pytest.raises(SettingsError) as caught:
        read_line(path)
    assert str(caught.value).startswith(str(path)) and words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


FILE = """
[[source]]
url = "a"
[[source]]
url = "b"
stall_timeout = 3
[[sink]]
type = "jsonl"
path = "x"
keep = 7
[[sink]]
type = "images"
path = "out"
[[sink]]
type = "mqtt"
url = "mqtt://one/t"
[[sink]]
type = "mqtt"
url = "mqtt://two/t"
"""


class TestFlagsOverTheFile:
    @pytest.fixture
    def over(self, write):
        path = write(FILE)

        def over(*arguments):
            with load_command("run").make_context("kanoclip-run", list(arguments)) as ctx:
                return read_line(path).overridden(given_flags(ctx, GROUPS))

        return over

    def test_flags_of_sources_are_for_each(self, over):
        assert [one.stall_timeout for one in over().sources] == [5, 3]
        assert [one.stall_timeout for one in over("--stall-timeout", "9").sources] == [9, 9]
        assert over().notes == ()

    def test_named_sources_replace_those_of_the_file_which_is_said(self, over):
        found = over("--source", "c")
        assert [one.url for one in found.sources] == [Secret(literal="c")]
        assert len(found.notes) == 1 and "replace the [[source]] of" in found.notes[0] and "line 2" in found.notes[0]

    def test_an_output_s_flags_change_the_one_of_its_type(self, over):
        lines = over("--jsonl", "y").sinks[0]
        assert (lines.path, lines.keep) == ("y", 7)
        assert over("--output", "other").sinks[1] == ImagesOptions(over("--output", "other").sinks[1].path)
        assert len(over("--output", "other").sinks) == len(over().sinks) == 4

    def test_or_add_one(self, over):
        assert over("--output", "x.mp4", "--video-segment", "60").sinks[-1].segment == 60
        assert isinstance(over("--output", "x.mp4").sinks[-1], VideoOptions)

    def test_where_several_could_be_meant_the_lines_are_named(self, over):
        with pytest.raises(click.UsageError, match=r"--mqtt-queue could mean several .*line 14.*line 17.*the file"):
            over("--mqtt-queue", "3")

    def test_where_there_is_none_it_says_what_is_missing(self, over):
        with pytest.raises(click.UsageError, match=r"--webhook-queue: this is for --webhook URL"):
            over("--webhook-queue", "3")
        with pytest.raises(click.UsageError, match=r"--video-segment: this is for --output FILE.mp4"):
            over("--video-segment", "3")

    def test_an_address_from_the_environment_is_a_reference(self, monkeypatch):
        monkeypatch.setenv("KANOCLIP_WEBHOOK", "http://h/s3cret")
        (sink,) = from_flags("--source", "a").sinks
        assert sink.url == Secret(env="KANOCLIP_WEBHOOK") and sink.url.read() == "http://h/s3cret"


class TestSecrets:
    def test_files_are_found_beside_the_line_s(self, write, tmp_path, monkeypatch):
        monkeypatch.chdir("/")
        path = write("[[source]]\nurl = { file = 'camera' }\n[page]\nserve = '127.0.0.1:0'\ntoken = { file = 'token' }")
        (tmp_path / "camera").write_text("rtsp://me:s3cret@h/x\n")
        (tmp_path / "token").write_text("0123456789abcdef\n")
        line = read_line(path)
        assert line.sources[0].spec == "rtsp://me:s3cret@h/x" and "s3cret" not in repr(line)
        assert line.page.options().token == "0123456789abcdef"

    @pytest.mark.parametrize("content", [None, "", "\n", "a\nb\n", b"\xff"])
    def test_what_holds_no_secret_is_named_without_it(self, content, tmp_path):
        path = tmp_path / "secret"
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(SettingsError, match=r"secret .*in one line"):
            Secret(file=path).read()

    def test_a_variable_that_is_not_set(self, monkeypatch):
        monkeypatch.delenv("KANOCLIP_NONE", raising=False)
        with pytest.raises(SettingsError, match="KANOCLIP_NONE is not set: set it"):
            Secret(env="KANOCLIP_NONE").read()

    def test_a_broker_s_login_reaches_it(self, write, monkeypatch):
        monkeypatch.setenv("BROKER_PASSWORD", "s3cret")
        line = read_line(write(SINK + 'url = "mqtt://h/t"\nuser = "me"\npassword = { env = "BROKER_PASSWORD" }'))
        Outputs(line.sinks, None, None).makers(untrained=False)
        monkeypatch.delenv("BROKER_PASSWORD")
        with pytest.raises(SettingsError, match=r"line.toml, line 1: the environment variable BROKER_PASSWORD"):
            Outputs(line.sinks, None, None).makers(untrained=False)

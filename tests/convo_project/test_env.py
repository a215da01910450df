"""The environment: nonsense is refused with a sentence that names the variable; .env.example lists every one."""

import os
import re
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from convo_project import address, env, identity_providers

REFUSED = [
    (lambda: env.required("V", "Set it."), ""),
    (lambda: env.whole("V", 5), "five"),
    (lambda: env.whole("V", 5), "5.5"),
    (lambda: env.whole("V", 5, least=1), "0"),
    (lambda: env.whole("V", 5, most=10), "11"),
    (lambda: env.seconds("V", 1), "soon"),
    (lambda: env.seconds("V", 1, most=60), "61"),
    (lambda: env.seconds("V", 1), "nan"),
    (lambda: env.yes("V"), "perhaps"),
    (lambda: env.url("V"), "example.org"),
    (lambda: env.url("V"), "ftp://example.org"),
    (lambda: env.url("V"), "https://"),
    (lambda: env.choice("V", "INFO", {"INFO", "DEBUG"}), "loud"),
    *((lambda: env.prices("V"), nonsense) for nonsense in ("llama", "llama=1", "=1/2", "llama=1/2/3/4", "llama=1/-2")),
    *((lambda: env.prices("V"), nonsense) for nonsense in ("llama=1/two", "llama=nan/1", "llama=1/2/", "llama=1e9/1")),
]


@pytest.mark.parametrize(("read", "value"), REFUSED)
def test_it_refuses_nonsense_by_name(monkeypatch, read, value):
    monkeypatch.setenv("V", value)
    with pytest.raises(ImproperlyConfigured, match=r"^V "):
        read()


def test_it_reads_what_makes_sense(monkeypatch):
    monkeypatch.setenv("V", " 7 ")
    assert (env.text("V"), env.whole("V", 1), env.seconds("V", 1)) == ("7", 7, 7.0)
    monkeypatch.setenv("V", "On")
    assert env.yes("V") is True
    monkeypatch.setenv("V", "a, b,,c")
    assert env.words("V") == ["a", "b", "c"]
    monkeypatch.setenv("V", "https://example.org/base/")
    assert env.url("V") == "https://example.org/base"
    monkeypatch.setenv("V", "llama = 0/0, gpt-6-luna=0.10/0.50/0.01")
    assert env.prices("V") == {"llama": ("0", "0"), "gpt-6-luna": ("0.10", "0.50", "0.01")}
    monkeypatch.setenv("V", "debug")
    assert env.choice("V", "INFO", {"INFO", "DEBUG"}) == "DEBUG"


def test_an_empty_variable_means_the_default(monkeypatch):
    monkeypatch.setenv("V", "")
    assert (env.whole("V", 3), env.seconds("V", 1.5), env.yes("V"), env.url("V", "http://x")) == (
        3,
        1.5,
        False,
        "http://x",
    )


@pytest.mark.parametrize("host", ["example.org", "1.2.3", "127.0.0.1:80"])
def test_a_host_that_is_no_address_is_refused(monkeypatch, host):
    monkeypatch.setenv("HOST", host)
    with pytest.raises(ImproperlyConfigured, match="HOST"):
        address.host()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:8017"),
        ("localhost", "http://127.0.0.1:8017"),
        ("0.0.0.0", "http://127.0.0.1:8017"),
        ("::", "http://[::1]:8017"),
        ("[::1]", "http://[::1]:8017"),
        ("192.0.2.7", "http://192.0.2.7:8017"),
    ],
)
def test_the_base_url_reaches_the_host_from_this_machine(monkeypatch, host, url):
    monkeypatch.setenv("HOST", host)
    monkeypatch.setenv("PORT", "8017")
    assert address.base_url() == url


def test_the_example_lists_every_variable_that_is_read():
    sources = [
        path
        for room in ("convo_project", "conversations", "channels_out", "memory")
        for path in (env.PROJECT / room).rglob("*.py")
    ]
    reading = re.compile(
        r"""env\.(?:text|required|whole|seconds|yes|words|url|choice|prices|networks|name)\(\s*"([A-Z_0-9]+)\""""
    )
    read = {name for path in sources for name in reading.findall(path.read_text())}
    read |= {"CONVO_HOME", "CONVO_ALIVE_FILE"}  # read before there are settings
    read |= {f"OIDC_CORP_{part}" for part in identity_providers.PARTS}  # of each provider that OIDC_PROVIDERS names
    listed = set(re.findall(r"^#?([A-Z_0-9]+)=", Path(env.PROJECT / ".env.example").read_text(), re.MULTILINE))
    assert listed == read


# --- files -----------------------------------------------------------------------------------------------------------
VARIABLES = ("A", "B", "C")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Writes `.env` and the home's `secrets.env`, and gives what the variables are after loading them."""
    monkeypatch.setattr(env, "PROJECT", tmp_path)
    for name in (*VARIABLES, "CONVO_HOME"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)

    def load(dot_env="", secrets="", home="home", **process):
        os.environ.update(process)
        (tmp_path / ".env").write_text(dot_env)
        (tmp_path / home).mkdir(exist_ok=True)
        (tmp_path / home / "secrets.env").write_text(secrets)
        env.load_files()
        return {name: value for name, value in os.environ.items() if name in VARIABLES}

    return load


def test_the_process_s_environment_goes_before_env_and_that_before_the_secrets(files, tmp_path):
    found = files("A=env\nB=env\n", "A=secret\nB=secret\nC=secret\n", CONVO_HOME=str(tmp_path / "home"), A="process")
    assert found == {"A": "process", "B": "env", "C": "secret"}


def test_an_empty_variable_of_the_process_is_not_replaced(files, tmp_path):
    assert files("A=env", "A=secret", CONVO_HOME=str(tmp_path / "home"), A="") == {"A": ""}


def test_env_may_say_where_the_secrets_are(files, tmp_path):
    assert files(f"CONVO_HOME={tmp_path / 'other'}", "A=secret", home="other") == {"A": "secret"}


def test_without_files_nothing_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(env, "PROJECT", tmp_path)
    monkeypatch.setenv("CONVO_HOME", str(tmp_path / "home"))
    before = dict(os.environ)
    env.load_files()
    assert dict(os.environ) == before


def test_the_home_is_convo_s_own_folder_unless_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(env, "PROJECT", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for named, home in {"": tmp_path / ".convo", "~/own": tmp_path / "own", "near": tmp_path / "near"}.items():
        monkeypatch.setenv("CONVO_HOME", named)
        assert env.home() == home
    monkeypatch.delenv("CONVO_HOME")
    assert env.home() == tmp_path / ".convo"


@pytest.mark.parametrize("value", ["1", "10"])
def test_a_bound_is_allowed_itself(monkeypatch, value):
    monkeypatch.setenv("V", value)
    assert env.whole("V", 5, least=1, most=10) == int(value)
    assert env.seconds("V", 5, least=1, most=10) == float(value)


def test_an_earlier_name_is_read_where_the_present_one_is_not_set(monkeypatch):
    monkeypatch.setenv("OLD", "7")
    monkeypatch.setenv("V", "")
    assert env.whole("V", 5, earlier="OLD") == 7
    monkeypatch.setenv("V", "8")
    assert env.whole("V", 5, earlier="OLD") == 8
    monkeypatch.setenv("OLD", "")
    monkeypatch.setenv("V", "")
    assert env.whole("V", 5, earlier="OLD") == 5

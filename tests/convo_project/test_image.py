"""The steps of the Dockerfile, without Docker: in a clean directory that is read-only.

The Dockerfile, compose.yaml and the manifests are also held against each other and against what Convo counts.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import requests
import yaml

from conversations.services.core import counters
from convo_project import embedded_postgres, env, processes
from convo_project.address import free_port

DOCKERFILE = (env.PROJECT / "Dockerfile").read_text()
DEPLOY = env.PROJECT / "deploy"
KUBECTL = shutil.which("kubectl") or ""
COMMANDS = {
    "web": ["python", "-m", "convo_project.web"],
    "dispatcher": ["python", "manage.py", "dispatch"],
    "queue": ["python", "manage.py", "qcluster"],
}


def manifests():
    return [
        each
        for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
        for each in yaml.safe_load_all(path.read_text())
        if each["kind"] != "Kustomization"
    ]


def test_every_step_of_the_image_is_one_of_the_makefile():
    makefile = (env.PROJECT / "Makefile").read_text()
    for step in re.findall(r"^RUN make (\S+)", DOCKERFILE, re.MULTILINE):
        assert re.search(rf"^{step}:", makefile, re.MULTILINE), step
    copied = set(re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE))
    named = {name for each in copied for name in each.split()}
    ignored = (env.PROJECT / ".dockerignore").read_text().split()
    assert {f"!{name}" for name in named} == {each for each in ignored if each.startswith("!")}
    assert all((env.PROJECT / name).exists() for name in named)
    assert "USER 10001:10001" in DOCKERFILE


def test_compose_and_the_manifests_run_the_three_processes_alike():
    services = yaml.safe_load((env.PROJECT / "compose.yaml").read_text())["services"]
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in manifests()
        if "template" in each.get("spec", {})
    }
    for name, command in COMMANDS.items():
        assert services[name]["command"] == command
        assert (services[name]["read_only"], services[name]["user"], services[name]["cap_drop"]) == (
            True,
            "10001:10001",
            ["ALL"],
        )
        [container] = pods[name]["containers"]
        assert container["command"] == command
    assert set(pods) == {*COMMANDS, "migrate"}
    for pod in pods.values():
        [container] = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["resources"]["requests"]
        assert container["resources"]["limits"]["memory"]
        assert pod["automountServiceAccountToken"] is False


def test_no_file_holds_a_secret():
    kinds = {each["kind"] for each in manifests()}
    assert "Secret" not in kinds
    for path in [env.PROJECT / "compose.yaml", *DEPLOY.rglob("*")]:
        if path.is_file() and path.name != ".env":
            assert not re.search(
                r"(SECRET_KEY|CREDENTIALS_KEYS|PASSWORD|METRICS_KEY)[=:] *[A-Za-z0-9_-]{16,}", path.read_text()
            ), path


def test_the_dashboard_and_the_alerts_ask_for_what_is_counted():
    source = Path(counters.__file__).read_text()
    known = set(re.findall(r'"(convo_[a-z_]+)"', source))
    known |= {"convo_waiting", "convo_waiting_oldest_seconds", "convo_circuits_open"}
    asked = (DEPLOY / "monitoring" / "dashboard.json").read_text() + (DEPLOY / "monitoring" / "alerts.yaml").read_text()
    for name in set(re.findall(r"convo_[a-z_]+", asked)):
        assert re.sub(r"_(total|bucket|count|sum)$", "", name) in known, name
    assert json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text())["panels"]
    assert yaml.safe_load((DEPLOY / "monitoring" / "alerts.yaml").read_text())["groups"]


@pytest.mark.skipif(not KUBECTL, reason="needs kubectl")
def test_kustomize_builds_the_manifests():
    built = subprocess.run([KUBECTL, "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True, check=True)
    found = list(yaml.safe_load_all(built.stdout))
    assert len(found) == len(manifests())
    assert "image: convo\n" not in built.stdout


def test_a_process_is_alive_while_it_touches_its_file(tmp_path):
    file = tmp_path / "alive"

    def code(**variables):
        command = [sys.executable, "-m", "convo_project.alive"]
        return subprocess.run(command, cwd=env.PROJECT, env={**os.environ, **variables}, check=False).returncode

    assert code(CONVO_ALIVE_FILE="") == 1
    assert code(CONVO_ALIVE_FILE=str(file)) == 1
    file.touch()
    assert code(CONVO_ALIVE_FILE=str(file)) == 0
    os.utime(file, (time.time() - 70, time.time() - 70))
    assert code(CONVO_ALIVE_FILE=str(file)) == 1
    assert code(CONVO_ALIVE_FILE=str(file), HANG_SECONDS="80") == 0


def files_of(folder):
    """The files of the folder with their sizes and times."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# --- the whole of it --------------------------------------------------------------------------------------------------
@pytest.fixture
def app():
    """The content of the image's /app, made by the Dockerfile's own steps in a clean directory; then read-only."""
    folder = Path(tempfile.mkdtemp(prefix="convo-image-"))
    folder.chmod(0o755)
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    first_stage = DOCKERFILE.split("\nFROM")[1]
    for step in re.findall(r"^(COPY .+|RUN make .+)$", first_stage, re.MULTILINE):
        word, *names = step.split()
        if word == "RUN":
            done = subprocess.run(names, cwd=folder, env=clean, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            continue
        for name in names[:-1]:
            source = env.PROJECT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copy(source, folder)
    subprocess.run([shutil.which("chmod") or "", "-R", "a-w,a+rX", folder], check=True)
    yield folder
    subprocess.run([shutil.which("chmod") or "", "-R", "u+w", folder], check=True)
    shutil.rmtree(folder)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_three_commands_serve_from_a_read_only_directory(app, made_home):
    home = made_home()
    place = Path(tempfile.mkdtemp(prefix="convo-data-"))
    (place / "static").mkdir()
    running = []
    with embedded_postgres.running(home):
        environment = {
            **dict(re.findall(r"(\w+)=(\S+)", DOCKERFILE.partition("ENV ")[2].partition("USER")[0])),
            "PATH": f"{app}/.venv/bin:/usr/bin:/bin",
            "CONVO_HOME": str(place),
            "DATABASE_URL": env.text("DATABASE_URL") or embedded_postgres.database_url(home),
            "SECRET_KEY": "k" * 50,
            "CREDENTIALS_KEYS": env.text("CREDENTIALS_KEYS"),
            "HOST": "127.0.0.1",
            "PORT": str(free_port()),
            "TMPDIR": str(place),
        }
        before = files_of(app)
        try:
            subprocess.run(
                [f"{app}/.venv/bin/python", "-m", "convo_project.prepare"], cwd=app, env=environment, check=True
            )
            for name, [_, *rest] in COMMANDS.items():
                own = {**environment, "CONVO_ALIVE_FILE": str(place / name)}
                running.append(
                    subprocess.Popen([f"{app}/.venv/bin/python", *rest], cwd=app, env=own, start_new_session=True)
                )
            facts = json.loads((place / "quickstart.json").read_text())

            def is_ready():
                try:
                    return requests.get(f"{facts['base_url']}/readyz", timeout=5).status_code == 200
                except requests.RequestException:
                    return False

            assert processes.wait_for(is_ready, 60)
            key = {"X-Service-API-Key": facts["api_key"]}
            body = {"client_id": facts["client_id"], "user_id": "ann", "message": "Hello"}
            said = requests.post(
                f"{facts['base_url']}/webhooks/sms/inbound", json=body, headers=key, timeout=30
            ).json()["data"]

            def is_answered():
                read = requests.get(
                    f"{facts['base_url']}/conversations/{said['conversation_id']}", headers=key, timeout=30
                )
                return [each for each in read.json()["data"]["chunks"] if each["role"] == "ai"]

            assert processes.wait_for(is_answered, 60)
            for name in COMMANDS:
                own = {**environment, "CONVO_ALIVE_FILE": str(place / name)}
                alive = [f"{app}/.venv/bin/python", "-m", "convo_project.alive"]
                assert processes.wait_for(
                    lambda own=own, alive=alive: not subprocess.run(alive, cwd=app, env=own, check=False).returncode, 60
                ), name
        finally:
            for each in running:
                each.terminate()
            for each in running:
                each.wait(60)
            shutil.rmtree(place)
        assert files_of(app) == before, "they write nothing there, though root could"

"""`make up` and its commands as processes of their own, as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import requests

from convo_project import env, processes
from convo_project.home import GENERATED

READY = "Stop it with Ctrl-C"


class Up:
    """A running `make up`, whose user has set these variables."""

    def __init__(self, home, port, **variables):
        self.home, self.port, self.text = home, port, ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "convo_project.launch", "up"],
            cwd=env.PROJECT,
            env=environment(home, port) | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        if not self.says(READY, 400):
            self.process.kill()  # the next one may have the home
            raise AssertionError(self.text)

    def _read(self):
        for line in self.process.stdout:
            self.text += line.decode()

    def says(self, words, seconds=100):
        return processes.wait_for(lambda: words in self.text or self.process.poll() is not None, seconds) and (
            words in self.text
        )

    def pids(self, command):
        """The processes of this home whose command line contains `command`, parents first."""
        found = [pid for pid in processes.supervised(self.home) if command in processes.command_line(pid)]
        return sorted(found, key=lambda pid: parent(pid) in found)

    def quickstart(self):
        return json.loads((self.home / "quickstart.json").read_text())

    def send(self, message):
        """Send a message with the demo client's key; the answer's data."""
        facts = self.quickstart()
        body = json.dumps({"client_id": facts["client_id"], "user_id": "test", "message": message}).encode()
        headers = {"Content-Type": "application/json", "X-Service-API-Key": facts["api_key"]}
        answer = requests.post(f"{facts['base_url']}/webhooks/sms/inbound", body, headers=headers, timeout=30)
        answer.raise_for_status()
        return answer.json()["data"]

    def stop(self, number=signal.SIGTERM):
        """Send it a signal; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(100)


def environment(home, port):
    """The environment of a user who has set nothing but the home and the port."""
    ours = {"CONVO_HOME": str(home), "PORT": str(port), "HOST": "", "DATABASE_URL": "", "WEB_WORKERS": "2"}
    return {name: value for name, value in os.environ.items() if name not in GENERATED} | ours


def launch(home, port, *arguments):
    """Run a command of the launcher to its end."""
    return subprocess.run(
        [sys.executable, "-m", "convo_project.launch", *arguments],
        cwd=env.PROJECT,
        env=environment(home, port),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def is_gone(pid):
    return not processes.command_line(pid)


def answers(up):
    def sent():
        try:
            return bool(up.send("Are you back?"))
        except requests.RequestException:
            return False

    return processes.wait_for(sent, 100)


def manage(environment, *arguments):
    """Run a management command to its end."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=env.PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

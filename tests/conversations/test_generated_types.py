"""TypeScript types that openapi-typescript generates from the API description compile, and do the main job.

The tools come from the registry of npm: `make test` leaves this out, and so does `make test-long` where it is away.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conversations.models import Chunk, Client
from tests.routes import SCHEMA
from tests.sizes import LONG

TOOLS = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3")
PROGRAM = """
import createClient from "openapi-fetch";
import type { paths, components } from "./convo.js";

declare const process: { argv: string[] };
const [url, key, clientId] = process.argv.slice(2) as [string, string, string];
const convo = createClient<paths>({ baseUrl: url, headers: { "X-Service-API-Key": key } });

const said = await convo.POST("/webhooks/{channel}/inbound", {
  params: { path: { channel: "sms" } },
  body: { client_id: clientId, user_id: "ann", message: "Hello" },
});
const place = said.data!.data!;
if (!("conversation_id" in place)) throw new Error("that is the answer to a provider");
const id: string = place.conversation_id!;
const read = await convo.GET("/conversations/{id}", { params: { path: { id } } });
const chunks: components["schemas"]["Chunk"][] = read.data!.data!.chunks;
const sent = await convo.POST("/conversations/{id}/send", {
  params: { path: { id } },
  body: { role: "ai", content: `You said: ${chunks.at(-1)!.content}` },
});
console.log(sent.data!.data!.chunk!.content);

// @ts-expect-error There is no such channel.
await convo.POST("/webhooks/{channel}/inbound", { params: { path: { channel: "post" } } });
"""
OPTIONS = {
    "target": "es2022",
    "module": "nodenext",
    "moduleResolution": "nodenext",
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "skipLibCheck": True,
    "outDir": "built",
    "lib": ["es2022", "dom", "dom.iterable"],
}
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not LONG, reason="make test-long tries the TypeScript types: their tools come from npm."),
    pytest.mark.timeout(900),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the tools."""
    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("There is no Node here: the TypeScript types are not tried.")
    (tmp_path / "package.json").write_text('{"type": "module", "private": true}')
    quiet = ("--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1", "--fetch-timeout=20000")
    if run(tmp_path, "npm", "install", *quiet, *TOOLS).returncode:
        pytest.skip("npm's registry cannot be reached: the TypeScript types are not tried.")
    return tmp_path


def run(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = shutil.which(program)
    assert path
    return subprocess.run([path, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_a_program_with_generated_types_passes_on_a_message_reads_it_and_answers(
    folder: Path, live_server: Any, shop: Client, key: str
) -> None:
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    (folder / "main.ts").write_text(PROGRAM)
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "files": ["main.ts", "convo.ts"]}))
    generated = run(folder, "node", "node_modules/openapi-typescript/bin/cli.js", "schema.json", "-o", "convo.ts")
    assert generated.returncode == 0, generated.stdout + generated.stderr
    compiled = run(folder, "node", "node_modules/typescript/bin/tsc")
    assert compiled.returncode == 0, compiled.stdout
    done = run(folder, "node", "built/main.js", live_server.url, key, str(shop.pk))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "You said: Hello"
    assert Chunk.objects.filter(role="ai", content="You said: Hello").exists()

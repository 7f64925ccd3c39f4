"""Code for what is no plain request of JSON: a form with a file, a socket, a batch.

In each text @URL@, @SOCKET@, @PATH@, @ASKED@, @MODEL@, @METHOD@, @ANSWER@ and @FIELDS@ are
filled in; @BODY@ and @LINE@ are values as the language writes them.
"""

from __future__ import annotations

from core.playground.endpoints import Way

_OPENAI_PYTHON = """from openai import OpenAI

client = OpenAI(base_url="@URL@/v1", api_key=os.environ["BUD_API_KEY"])
"""
_OPENAI_JAVASCRIPT = """const client = new OpenAI({
  baseURL: "@URL@/v1",
  apiKey: process.env.BUD_API_KEY,
});
"""

CURL: dict[Way, str] = {
    "form": """curl @URL@@PATH@ \\
  -H "Authorization: Bearer $BUD_API_KEY" \\
@FIELDS@  -F file=@speech.mp3
""",
    "socket": """# curl shows whether the session is let in; to talk, use a client of WebSockets.
curl --include --max-time 3 --http1.1 "@URL@@PATH@?model=@MODEL@" \\
  -H "Authorization: Bearer $BUD_API_KEY" \\
  -H "Connection: Upgrade" -H "Upgrade: websocket" \\
  -H "Sec-WebSocket-Version: 13" -H "Sec-WebSocket-Key: $(openssl rand -base64 16)"
""",
    "batch": """cat > lines.jsonl <<'END'
@LINE@
END
FILE=$(curl -s @URL@/v1/files -H "Authorization: Bearer $BUD_API_KEY" \\
  -F purpose=batch -F file=@lines.jsonl | grep -o '"id": *"[^"]*"' | cut -d'"' -f4)
curl @URL@@PATH@ \\
  -H "Authorization: Bearer $BUD_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{"input_file_id": "'"$FILE"'", "endpoint": "@ASKED@", "completion_window": "24h"}'
""",
}

PYTHON: dict[Way, str] = {
    "form": f"""import os

{_OPENAI_PYTHON}with open("speech.mp3", "rb") as file:
    answer = client.@METHOD@(
@FIELDS@        file=file,
    )
print(@ANSWER@)
""",
    "socket": """import json
import os

from websockets.sync.client import connect

headers = {"Authorization": f"Bearer {os.environ['BUD_API_KEY']}"}
with connect("@SOCKET@@PATH@?model=@MODEL@", additional_headers=headers) as socket:
    socket.send(json.dumps(@BODY@))
    for event in socket:
        print(event)
""",
    "batch": f"""import json
import os
import time

{_OPENAI_PYTHON}line = @LINE@
lines = client.files.create(
    file=("lines.jsonl", json.dumps(line).encode()), purpose="batch"
)
batch = client.batches.create(
    input_file_id=lines.id, endpoint="@ASKED@", completion_window="24h"
)
while batch.status in ("validating", "in_progress", "finalizing"):
    time.sleep(2)
    batch = client.batches.retrieve(batch.id)
for done in (batch.output_file_id, batch.error_file_id):
    if done:
        print(client.files.content(done).text)
print(batch.status)
""",
}

JAVASCRIPT: dict[Way, str] = {
    "form": f"""import fs from "node:fs";
import OpenAI from "openai";

{_OPENAI_JAVASCRIPT}const answer = await client.@METHOD@({{
@FIELDS@  file: fs.createReadStream("speech.mp3"),
}});
console.log(answer.text);
""",
    "socket": """import WebSocket from "ws";

const socket = new WebSocket("@SOCKET@@PATH@?model=@MODEL@", {
  headers: { Authorization: `Bearer ${process.env.BUD_API_KEY}` },
});
socket.on("open", () => socket.send(JSON.stringify(@BODY@)));
socket.on("message", (event) => console.log(String(event)));
""",
    "batch": f"""import OpenAI, {{ toFile }} from "openai";

{_OPENAI_JAVASCRIPT}const line = @LINE@;
const lines = await client.files.create({{
  file: await toFile(Buffer.from(JSON.stringify(line)), "lines.jsonl"),
  purpose: "batch",
}});
let batch = await client.batches.create({{
  input_file_id: lines.id,
  endpoint: "@ASKED@",
  completion_window: "24h",
}});
while (["validating", "in_progress", "finalizing"].includes(batch.status)) {{
  await new Promise((resolve) => setTimeout(resolve, 2000));
  batch = await client.batches.retrieve(batch.id);
}}
for (const done of [batch.output_file_id, batch.error_file_id]) {{
  if (done) console.log(await (await client.files.content(done)).text());
}}
console.log(batch.status);
""",
}

"""The HTML of the log-in pages: one small document without scripts, light and dark."""

from __future__ import annotations

from app.theme import LOGO_SVG

_FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Bud · log in</title>
<style>
:root {{ color-scheme: light dark; --bg:#f6f7f4; --card:#fff; --text:#1c2321; --soft:#5d6a66;
  --line:#dfe4df; --accent:#0b7a55; --on:#fff; --bad:#b3261e; --badbg:#fdecea }}
@media (prefers-color-scheme: dark) {{ :root {{ --bg:#0f1513; --card:#171f1c; --text:#e7ece9;
  --soft:#98a6a0; --line:#2a3531; --accent:#3ecf9a; --on:#06251a; --bad:#ffb4ab; --badbg:#3b1512
  }} }}
* {{ box-sizing:border-box }}
body {{ margin:0; min-height:100vh; display:grid; place-items:center; padding:24px 16px;
  background:var(--bg); color:var(--text);
  font:16px/1.5 Inter,system-ui,-apple-system,"Segoe UI",sans-serif }}
main {{ width:100%; max-width:380px }}
.logo {{ display:flex; align-items:center; gap:10px; font-size:24px; font-weight:650;
  margin-bottom:6px }}
.logo svg {{ width:32px; height:32px }}
.purpose {{ color:var(--soft); margin:0 0 20px }}
form {{ background:var(--card); border:1px solid var(--line); border-radius:14px; padding:24px;
  box-shadow:0 1px 2px rgb(0 0 0/.04), 0 8px 24px rgb(0 0 0/.05) }}
h1 {{ font-size:18px; margin:0 0 16px }}
label {{ display:block; font-size:14px; font-weight:550; margin-bottom:14px }}
input:not([type=hidden]) {{ display:block; width:100%; margin-top:6px; padding:10px 12px;
  font:inherit; color:inherit; background:var(--bg); border:1px solid var(--line);
  border-radius:9px }}
input:focus-visible, button:focus-visible {{ outline:2px solid var(--accent); outline-offset:1px }}
button {{ width:100%; padding:11px; border:0; border-radius:9px; background:var(--accent);
  color:var(--on); font:inherit; font-weight:600; cursor:pointer }}
form.plain {{ background:none; border:0; box-shadow:none; padding:10px 2px }}
form.plain button {{ width:auto; padding:0; background:none; color:var(--accent);
  font-size:13.5px; font-weight:550 }}
.error {{ background:var(--badbg); color:var(--bad); border-radius:9px; padding:10px 12px;
  margin:0 0 16px; font-size:14px }}
.hint {{ color:var(--soft); font-size:13.5px; margin:14px 2px 0 }}
code {{ font-family:ui-monospace,Menlo,monospace; font-size:.95em }}
</style></head>
<body><main>
<div class="logo">{logo}<span>Bud</span></div>
<p class="purpose">Your models, on your machines.</p>
{body}
</main></body></html>"""

LOG_IN = """<form method="post" action="/auth/login">
<h1>Log in</h1>
{message}
<input type="hidden" name="csrf" value="{csrf}"><input type="hidden" name="next" value="{next}">
<label>E-mail <input name="email" type="email" autocomplete="username" required autofocus
  value="{email}"></label>
<label>Password <input name="password" type="password" autocomplete="current-password"
  required></label>
<button type="submit">Log in</button>
</form>
<p class="hint">First time here? <code>bud up</code> printed the e-mail address and a one-time
password in its window.</p>"""

CHANGE_FORM = """<form method="post" action="/auth/password">
<h1>Choose a new password</h1>
{message}
<input type="hidden" name="csrf" value="{csrf}"><input type="hidden" name="next" value="{next}">
<label>Present password <input name="old" type="password" autocomplete="current-password"
  required autofocus></label>
<label>New password <input name="new" type="password" autocomplete="new-password" minlength="10"
  required></label>
<label>New password again <input name="again" type="password" autocomplete="new-password"
  minlength="10" required></label>
<button type="submit">Save and go on</button>
</form>
<p class="hint">The present one is the one-time password, the first time. The new one has at
least 10 characters. Your other sessions end.</p>
<form class="plain" method="post" action="/auth/logout">
<input type="hidden" name="csrf" value="{csrf}"><button type="submit">Log out instead</button>
</form>"""


def render(body: str, **values: str) -> str:
    """The whole document; every value must be HTML-escaped already."""
    return _FRAME.format(body=body.format(**values), logo=LOGO_SVG)

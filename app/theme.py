"""The look of Bud, beyond what `.streamlit/config.toml` can say."""

from __future__ import annotations

import streamlit as st

LOGO_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" role="img" aria-label="Bud">'
    '<path d="M16 29V15" stroke="#0b7a55" stroke-width="2.6" stroke-linecap="round" fill="none"/>'
    '<path d="M16 17C7 17 4.5 11 4 4c8 .4 12 4.600 12 13z" fill="#18a673"/>'
    '<path d="M16 21c0-7 3.800-11 12-11.500C27.500 16.500 24 21 16 21z" fill="#7ed957"/></svg>'
)

_WORDMARK_SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 32" role="img" aria-label="Bud">'
    '<path d="M16 29V15" stroke="#0b7a55" stroke-width="2.6" stroke-linecap="round" fill="none"/>'
    '<path d="M16 17C7 17 4.5 11 4 4c8 .4 12 4.600 12 13z" fill="#18a673"/>'
    '<path d="M16 21c0-7 3.800-11 12-11.500C27.500 16.500 24 21 16 21z" fill="#7ed957"/>'
    # The font is whichever the machine has: a stated length keeps every one inside the picture.
    '<text x="37" y="24" textLength="48" lengthAdjust="spacingAndGlyphs" '
    'font-family="Inter,system-ui,sans-serif" font-size="24" '
    'font-weight="700" fill="#18a673">Bud</text></svg>'
)

_CSS = """<style>
[data-testid="stMainBlockContainer"] { padding-top: 3.2rem; max-width: 1320px; }
[data-testid="stMetric"] { border-radius: 12px; }
[data-testid="stMetricValue"], [data-testid="stDataFrame"], .tabular {
  font-variant-numeric: tabular-nums; }
[data-testid="stMetricValue"] { font-size: 1.55rem; font-weight: 650; }
[class*="st-key-bud-kpi-row"] { display: grid;
  grid-template-columns: repeat(auto-fit, minmax(145px, 1fr)); }
[class*="st-key-bud-kpi-row"] [data-testid="stMetricValue"] { font-size: 1.3rem; }
[data-testid="stHeading"] h1 { letter-spacing: -0.02em; padding-bottom: .1rem; }
a[href^="mailto:"] { color: inherit !important; text-decoration: none !important; }
/* Streamlit writes white on the accent colour, which is light in the dark theme. */
[data-testid^="stBaseButton-primary"]:not(:disabled) {
  color: light-dark(#ffffff, #06251a) !important; }
/* The same for differences: its green and red are too light to be read on white. */
[data-testid="stCode"] .token.inserted { color: light-dark(#0a6b3d, #3ecf9a) !important; }
[data-testid="stCode"] .token.deleted { color: light-dark(#b42318, #ff8f86) !important; }
/* The project and the account stand above the navigation, where no screen is too low for them. */
[data-testid="stSidebarContent"] { display: flex; flex-direction: column; }
[data-testid="stSidebarUserContent"] { order: 1; padding: .25rem 0 .75rem; }
[data-testid="stSidebarNav"] { order: 2; }
[data-testid="stSidebarNavSeparator"] { display: none; }
@media (max-width: 640px) {
  [data-testid="stMainBlockContainer"] { padding: 4.4rem 1rem 4rem; }
  [data-testid="stMetricValue"] { font-size: 1.25rem; }
  /* So that the views of a page stand in one row. */
  button[data-variant="segmented_control"] { padding-inline: .4rem; }
  /* Without a keyboard a shortcut says nothing. */
  [data-has-shortcut] kbd { display: none; }
}
@media (prefers-reduced-motion: reduce) { * { transition: none !important; } }
</style>"""


def apply() -> None:
    """Set the logo and the few rules of style; call once a run."""
    st.logo(_WORDMARK_SVG, icon_image=LOGO_SVG, size="large")
    st.html(_CSS)

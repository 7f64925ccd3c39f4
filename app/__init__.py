"""The Streamlit shell: app, routes, session, theme, shared widgets, and the command line."""

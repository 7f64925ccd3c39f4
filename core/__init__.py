"""The product: one package a noun. Imports neither streamlit nor aiohttp."""

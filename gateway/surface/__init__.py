"""What callers can ask beside texts and vectors: docs/gateway-surface.md.

All of it is served by aiohttp (`gateway.cold`): nothing here is on the way of a hot route.
"""

# Bud in a container: the same launcher as on a machine, in two stages, without root.
# No image has been built from this file yet where Bud is developed (there is no Docker engine);
# tests/integration/test_dockerfile_steps.py runs its steps in a clean folder instead.
#
#   docker build -t bud .
#   docker run --init -p 8501:8501 -p 8502:8502 -v bud:/var/lib/bud bud

FROM python:3.12-slim-bookworm AS build
WORKDIR /opt/bud
COPY bud ./
COPY requirements/ requirements/
RUN ./bud prepare

FROM python:3.12-slim-bookworm
WORKDIR /opt/bud
RUN useradd --system --uid 10001 --home-dir /var/lib/bud --create-home bud
COPY --from=build /opt/bud/.venv/ .venv/
COPY bud LICENSE README.md ./
COPY requirements/ requirements/
COPY app/ app/
COPY core/ core/
COPY gateway/ gateway/
COPY pages/ pages/
COPY playbooks/ playbooks/
# Python's bytecode goes to the volume, because the program's folder belongs to root.
ENV BUD_DATA_DIR=/var/lib/bud BUD_HOST=0.0.0.0 PYTHONPYCACHEPREFIX=/var/lib/bud/pycache
USER 10001
VOLUME /var/lib/bud
EXPOSE 8501 8502
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s CMD ["/opt/bud/bud", "health"]
ENTRYPOINT ["/opt/bud/bud"]
CMD ["up"]

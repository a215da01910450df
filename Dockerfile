# One image, three commands: `python -m convo_project.web`, `python manage.py dispatch`, `python manage.py qcluster`.
# What it builds, it builds by targets of the Makefile; tests/convo_project/test_image.py runs them without Docker.

FROM python:3.11-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY Makefile requirements.lock ./
RUN make run-venv
COPY manage.py pyproject.toml ./
COPY channels_out channels_out
COPY conversations conversations
COPY convo_project convo_project
COPY memory memory
COPY locale locale
COPY templates templates
RUN make compile

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --create-home --home-dir /home/convo convo \
    && mkdir -p /home/convo/static /home/convo/data \
    && chown -R convo:convo /home/convo
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    CONVO_HOME=/home/convo \
    CONVO_ALIVE_FILE=/tmp/convo-alive \
    LOG_FORMAT=JSON
USER 10001:10001
EXPOSE 8000
# A process that gives no sign of life from its main loop hangs, whatever its command is.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-m", "convo_project.alive"]
CMD ["python", "-m", "convo_project.web"]

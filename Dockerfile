# One image for every role: the command says which. PostgreSQL and Redis or Valkey stand beside it, never inside.
# Python 3.11 is what the tests run on. musl is no choice: the locked wheels are made for glibc.
FROM python:3.11-slim-bookworm AS packages
COPY requirements.lock /tmp/requirements.lock
RUN python -m venv /opt/outrider \
    && /opt/outrider/bin/pip install --no-cache-dir --disable-pip-version-check \
        --require-hashes --no-deps --only-binary :all: -r /tmp/requirements.lock

FROM python:3.11-slim-bookworm
# A volume mounted here for the first time takes over the owner and the mode.
RUN useradd --system --uid 10001 --home-dir /var/lib/outrider --shell /usr/sbin/nologin outrider \
    && install -d -o outrider -g outrider -m 0700 /var/lib/outrider
COPY --from=packages /opt/outrider /opt/outrider
WORKDIR /app
COPY relay/ relay/
COPY tracker/ tracker/
COPY courier/ courier/
COPY injector/ injector/
COPY providers/ providers/
COPY ledger/ ledger/
COPY sidecar/ sidecar/
COPY migrations/ migrations/
ENV PATH=/opt/outrider/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    OUTRIDER_DATA_DIR=/var/lib/outrider
USER outrider
EXPOSE 2525 8080 8081
ENTRYPOINT ["python", "-m", "sidecar"]
CMD ["--help"]

# The image of samovard: its own Python packages, the pinned CLI, nothing else.
# docs/deploy.md tells how to build and run it. Steps longer than a line are in
# deploy/container, where tests run them.
ARG BASE=debian:13.2-slim

# hadolint ignore=DL3006
FROM ${BASE} AS build
# Of the stage that is thrown away; what the image has is locked by hashes.
# hadolint ignore=DL3008
RUN apt-get update -q \
  && apt-get install -q -y --no-install-recommends python3-venv \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements requirements
RUN python3 -m venv /build \
  && /build/bin/pip install -q --no-cache-dir --require-hashes --only-binary :all: \
    -r requirements/run.txt
COPY deploy/container deploy/container
RUN deploy/container/claude.sh /build/bin/python /opt/claude
COPY LICENSE README.md pyproject.toml ./
COPY clients/python clients/python
COPY server server
ARG SOURCE_DATE_EPOCH=0
RUN deploy/container/install.sh /build/bin/python /opt/samovar

# hadolint ignore=DL3006
FROM ${BASE}
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=bind,source=deploy/container,target=/container /container/system.sh
COPY --from=build /opt/claude /opt/claude
COPY --from=build /opt/samovar /opt/samovar
# The service finds the CLI on its search path; agents have another one (profiles.NAME.path).
# State is in /var/lib/samovar unless a setting says otherwise.
ENV PATH=/opt/samovar/bin:/opt/claude:/usr/bin:/bin \
  XDG_STATE_HOME=/var/lib \
  PYTHONDONTWRITEBYTECODE=1 \
  PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /var/lib/samovar
EXPOSE 50051
# By the operator's socket: it is there however callers reach the service.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["samovar", "health", "--target=unix:/var/lib/samovar/operator.sock", \
    "--service=samovar.v1.Session"]
# tini reaps what outlives the service, and passes SIGTERM on.
ENTRYPOINT ["/usr/bin/tini", "--", "samovard"]
CMD ["serve"]
ARG BASE
ARG VERSION=0.1.0
ARG CLAUDE_VERSION=2.1.330
ARG REVISION=unknown
LABEL org.opencontainers.image.title="samovard" \
  org.opencontainers.image.description="Keeps claude processes warm for every tenant's session" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}" \
  org.opencontainers.image.base.name="${BASE}" \
  samovar.claude.version="${CLAUDE_VERSION}"

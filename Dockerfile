# syntax=docker/dockerfile:1
#
# One image for all processes of Tollgate; the command says which:
#
#     node src/main.ts                the gateway (default)
#     node workers/main.ts            the worker
#     node auth-service/main.ts   the reference auth service
#
# Node 24 runs the TypeScript as it stands, so nothing is compiled. What is copied from here, and that it runs, is held
# by test/k8s/image.test.ts.

# The same Debian in all stages: Node is linked against its libraries.
ARG DEBIAN=trixie

FROM node:24-${DEBIAN}-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# No install scripts: the only one of a production dependency builds an optional add-on, which has a JavaScript twin.
RUN --mount=type=cache,target=/root/.npm \
    npm ci --omit=dev --ignore-scripts --no-audit --no-fund
# For `strip`.
RUN apt-get update && apt-get install -y --no-install-recommends binutils
# What nothing reads at run time; test/k8s/image.test.ts runs these commands, and then everything that Tollgate can do.
# Of Node a seventh: symbols, for debuggers of its C++ alone. Of the packages four fifths: TypeScript (Node strips no types
# inside node_modules: sources and declarations are dead there), source maps, manuals and tests; builds for browsers; where a
# package comes as CommonJS and as ES modules, the one that nobody imports; and OpenTelemetry's names for what is not
# settled. Licences stay.
RUN strip --strip-unneeded /usr/local/bin/node \
 && find node_modules -type f \( -name '*.map' -o -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -iname '*.md' \) \
      ! -iname '*licen[cs]e*' -delete \
 && find node_modules -type d -name test -prune -exec rm -r {} + \
 && find node_modules/@modelcontextprotocol node_modules/@opentelemetry/semantic-conventions node_modules/zod \
      -type f -name '*.cjs' -delete \
 && find node_modules/openai -type f -name '*.js' ! -path '*/internal/*' -delete \
 && rm -r node_modules/bullmq/dist/esm node_modules/yaml/browser node_modules/luxon/src node_modules/luxon/build/es6 \
      node_modules/luxon/build/amd node_modules/luxon/build/cjs-browser node_modules/luxon/build/global \
      node_modules/@opentelemetry/semantic-conventions/dist/experimental_* \
      node_modules/@opentelemetry/semantic-conventions/dist/index-incubating*

# Debian with Node's one binary, and not node:24-slim itself: 30 MB less, and no npm, npx, corepack or yarn for anybody
# who gets in. Debian's slim image has the libraries that Node is linked against (libstdc++, libgcc).
FROM debian:${DEBIAN}-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tollgate" \
      org.opencontainers.image.description="The gateway between browsers and AI agents: gateway, worker and reference auth service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim"
COPY --from=dependencies /usr/local/bin/node /usr/local/bin/node
WORKDIR /app
# Owned by root and not writable by the process, which writes no file at all: the root file system can be read-only.
COPY --from=dependencies /app/node_modules node_modules
COPY package.json ./
COPY config config
COPY console console
COPY workers workers
COPY auth-service auth-service
COPY src src
ENV NODE_ENV=production
# A number, since Kubernetes cannot tell whether a name is root (runAsNonRoot).
USER 65532:65532
EXPOSE 8000 8081 8090
# Node is PID 1, without tini: it starts no others but the programs of TOOL_SERVERS, whose ends it waits for, so that there is
# no zombie to be reaped, and src/process.ts handles SIGTERM from the first moment on, also before there is anything to close.
# For the gateway; docker-compose.yml has those of the others, and Kubernetes has probes of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["node", "src/healthcheck.ts", "http://127.0.0.1:8000/health/ready"]
STOPSIGNAL SIGTERM
CMD ["node", "src/main.ts"]

# syntax=docker/dockerfile:1
# One image for all processes of Tollgate; the command selects the process:
#
#     node src/main.ts                the gateway (default)
#     node workers/main.ts            the worker
#     node auth-service/main.ts   the reference auth service
# Node 24 runs TypeScript directly, so only the console is compiled. test/k8s/image.test.ts checks which files are copied, and
# that they run.

# The same Debian in all stages, because Node is linked against its libraries.
ARG DEBIAN=trixie

FROM node:24-${DEBIAN}-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# No install scripts: the only one of a production dependency builds an optional add-on, which has a JavaScript
# equivalent.
RUN --mount=type=cache,target=/root/.npm \
    npm ci --omit=dev --ignore-scripts --no-audit --no-fund
# `strip` is in binutils.
RUN apt-get update && apt-get install -y --no-install-recommends binutils
# Removes files that are not read at run time. test/k8s/image.test.ts runs these commands, and then every function of
# Tollgate. Of Node this is a seventh: symbols, which only debuggers of its C++ code use. Of the packages it is four
# fifths: TypeScript (Node does not strip types inside node_modules, so sources and declarations are unused there),
# source maps, manuals and tests; builds for browsers; in packages with CommonJS and ES modules, the variant that is not
# imported; and OpenTelemetry's experimental names. Licences stay.
RUN strip --strip-unneeded /usr/local/bin/node \
 && find node_modules -type f \( -name '*.map' -o -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -iname '*.md' \) \
      ! -iname '*licen[cs]e*' -delete \
 && find node_modules -type d -name test -prune -exec rm -r {} + \
 && find node_modules/@modelcontextprotocol node_modules/@opentelemetry/semantic-conventions node_modules/zod \
      -type f -name '*.cjs' -delete \
 && rm -r node_modules/bullmq/dist/esm node_modules/yaml/browser node_modules/luxon/src node_modules/luxon/build/es6 \
      node_modules/luxon/build/amd node_modules/luxon/build/cjs-browser node_modules/luxon/build/global \
      node_modules/@opentelemetry/semantic-conventions/dist/experimental_* \
      node_modules/@opentelemetry/semantic-conventions/dist/index-incubating*

# The console: static files, built by Vite. Its packages are in no other stage.
FROM node:24-${DEBIAN}-slim AS console
WORKDIR /app
COPY package.json package-lock.json tsconfig.json ./
COPY packages/client packages/client
COPY docs/runbook.md docs/runbook.md
COPY console console
RUN --mount=type=cache,target=/root/.npm \
    npm ci --ignore-scripts --no-audit --no-fund --workspace=@tollgate/console \
 && npm run build --workspace=@tollgate/console

# Debian with the Node binary instead of node:24-slim: 30 MB less, and no npm, npx, corepack or yarn for an intruder.
# Debian's slim image has the libraries that Node is linked against (libstdc++, libgcc).
FROM debian:${DEBIAN}-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Tollgate" \
      org.opencontainers.image.description="Self-hosted real-time gateway for AI agents: gateway, worker and reference auth service" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim"
COPY --from=dependencies /usr/local/bin/node /usr/local/bin/node
WORKDIR /app
# Owned by root and not writable by the process. The process writes no file, so the root file system can be read-only.
COPY --from=dependencies /app/node_modules node_modules
COPY package.json ./
COPY config config
COPY --from=console /app/console/dist console/dist
COPY workers workers
COPY auth-service auth-service
COPY src src
ENV NODE_ENV=production
# A number, because Kubernetes cannot check whether a user name is root (runAsNonRoot).
USER 65532:65532
EXPOSE 8000 8081 8090
# Node is PID 1, without tini: it starts only the programs of TOOL_SERVERS and waits for their exits, so there are no
# zombies to reap. src/process.ts handles SIGTERM from the first moment, also before any resource is open. This health
# check is for the gateway; docker-compose.yml has those of the other processes, and Kubernetes has its own probes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 \
    CMD ["node", "src/healthcheck.ts", "http://127.0.0.1:8000/health/ready"]
STOPSIGNAL SIGTERM
CMD ["node", "src/main.ts"]

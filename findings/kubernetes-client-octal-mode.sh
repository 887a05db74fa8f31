#!/usr/bin/env bash
# @kubernetes/client-node 2.0.1 (npm): `loadYaml` reads the mode of a file in a manifest as a decimal number.
#
# Expected: the client reads a manifest as kubectl does. Kubernetes decodes YAML 1.1, in which 0644 is octal, and its API
#           reference says of `defaultMode`: "YAML accepts both octal and decimal values". 0644 is 420.
# Actual:   the integer is read by the rules of YAML 1.2: 0644 becomes 644, which is the mode 01204, above
#           the greatest that Kubernetes allows (0777), and 0400 becomes 400, which is the mode 0620.
# Output seen on 2026-11-30, Node 24.20: see EXPECTED below.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm init --yes >/dev/null
# undici 8, on which the client depends, needs Node 22.
npm install --silent --no-audit --no-fund node@24 @kubernetes/client-node@2.0.1 yaml@2.8.1
cat >try.mjs <<'JS'
import { loadYaml } from '@kubernetes/client-node';
import { parse } from 'yaml';

const octal = (value) => `${value} (mode 0${Number(value).toString(8)})`;
for (const mode of ['0644', '0400', '420']) {
  const manifest = `apiVersion: v1
kind: Pod
metadata: { name: example }
spec:
  containers: []
  volumes:
    - name: scripts
      configMap: { name: scripts, defaultMode: ${mode} }
`;
  const read = (pod) => octal(pod.spec.volumes[0].configMap.defaultMode);
  console.log(`${mode}: client ${read(loadYaml(manifest))}, YAML 1.1 ${read(parse(manifest, { version: '1.1' }))}`);
}
JS
cat >EXPECTED <<'TXT'
0644: client 644 (mode 01204), YAML 1.1 420 (mode 0644)
0400: client 400 (mode 0620), YAML 1.1 256 (mode 0400)
420: client 420 (mode 0644), YAML 1.1 420 (mode 0644)
TXT
npx --no-install node try.mjs 2>&1 | tee seen
diff EXPECTED seen && echo 'unchanged'

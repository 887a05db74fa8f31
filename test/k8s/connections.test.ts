import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from '@jest/globals';
import { CONNECTIONS, connectionTable, LOCAL_CODE, PUBLISHED_ADDRESSES } from '../../scripts/lib/connections.ts';
import { PROJECT_ROOT } from '../../scripts/lib/processes.ts';
import { VARIABLE_NAMES } from '../../src/config.ts';
import { buildOverlay, buildWith, COMPONENTS, componentsOf, OVERLAYS, optInsOf } from '../support/manifests.ts';
import { allowedFlows, expectedFlows } from '../support/network-policies.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';

const sorted = (values: Iterable<string>) => [...new Set(values)].toSorted();

/** What opens a connection or listens, in the forms that this project uses. */
const OPENS =
  /(?:^|[\s(])(?:fetch|request)\((?!requestId)|new (?:Agent|OpenAI|RedisServer|Cluster|pg\.Pool|OTLPTraceExporter)\b|new (?:StreamableHTTP|Stdio)ClientTransport|new JwksClient|createConnection\(|\.listen\(\{ host/m;

describe('the table of connections', () => {
  it('names every file that opens a connection or listens', () => {
    const folders = ['src', 'workers', 'auth-service'];
    const files = folders.flatMap((folder) => {
      const names = readdirSync(join(PROJECT_ROOT, folder), { recursive: true, encoding: 'utf8' });
      return names.filter((name) => name.endsWith('.ts')).map((name) => `${folder}/${name}`);
    });
    const opening = files.filter((file) => OPENS.test(readFileSync(join(PROJECT_ROOT, file), 'utf8')));
    expect(opening.toSorted()).toEqual(sorted([...CONNECTIONS.flatMap(({ code }) => code), ...LOCAL_CODE]));
  });

  it('names every variable that sets an address or a port', () => {
    const addresses = VARIABLE_NAMES.filter((name) =>
      /_URL$|_ENDPOINT$|(^|_)PORT$|^TOOL_SERVERS$|^IDENTITY_PROVIDERS$/.test(name),
    );
    expect(addresses.length).toBeGreaterThan(10);
    expect(addresses.toSorted()).toEqual(
      sorted([...CONNECTIONS.flatMap(({ variables }) => variables), ...PUBLISHED_ADDRESSES]),
    );
  });

  it('names only components that exist, and stands in the README as it is', () => {
    expect(
      CONNECTIONS.map(({ component }) => component).filter((name) => name !== 'base' && !COMPONENTS.includes(name)),
    ).toEqual([]);
    expect(readFileSync(join(PROJECT_ROOT, 'k8s/README.md'), 'utf8')).toContain(`\n${connectionTable()}\n`);
  });
});

describeWith(KUBECTL, 'the network policies allow exactly the connections of the table', () => {
  it.each(OVERLAYS)('in the overlay %s', (overlay) => {
    const manifests = buildOverlay(overlay);
    const expected = expectedFlows(manifests, componentsOf(overlay));
    expect(expected.size).toBeGreaterThan(10);
    expect(sorted(allowedFlows(manifests))).toEqual(sorted(expected));
  });

  it.each(OVERLAYS.flatMap(optInsOf))('in the overlay $overlay with $component', ({ overlay, component, activate }) => {
    const manifests = buildOverlay(overlay, activate);
    const expected = expectedFlows(manifests, [...componentsOf(overlay), component]);
    expect(sorted(allowedFlows(manifests))).toEqual(sorted(expected));
  });

  it.each(COMPONENTS)('in the base with auth-service, redis-sentinel and %s', (component) => {
    const components = [...new Set(['auth-service', 'redis-sentinel', component])];
    // Both have a StatefulSet of the same name.
    if (component === 'redis-dev') components.splice(1, 1);
    const manifests = buildWith(components);
    expect(sorted(allowedFlows(manifests))).toEqual(sorted(expectedFlows(manifests, components)));
  });
});

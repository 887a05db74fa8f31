import { expect, it } from '@jest/globals';
import { Ajv } from 'ajv';
import { schemaProblems } from '../support/kubernetes-schemas.ts';
import { buildOverlay, buildWith, COMPONENTS, type Manifest, OVERLAYS } from '../support/manifests.ts';
import { describeWith, KUBECTL } from '../support/programs.ts';
import { changesAtSecondApply } from '../support/server-defaults.ts';

describeWith(KUBECTL, 'a second apply', () => {
  it.each(OVERLAYS)('of the overlay %s finds nothing to change', (overlay) => {
    expect(buildOverlay(overlay).all.flatMap(changesAtSecondApply)).toEqual([]);
  });

  it.each(COMPONENTS)('of the component %s finds nothing to change', (component) => {
    expect(buildWith([component]).all.flatMap(changesAtSecondApply)).toEqual([]);
  });

  it('would find a strategy without its type, a volume claim without its defaults, and another form of a number', () => {
    const manifests = buildWith(['redis-dev']);
    const changed = (kind: string, name: string, change: (text: string) => string) =>
      changesAtSecondApply(JSON.parse(change(JSON.stringify(manifests.get(kind, name)))) as Manifest);
    const worker = (from: string, to: string) =>
      changed('Deployment', 'tollgate-worker', (text) => text.replace(from, to));
    expect(worker('"type":"RollingUpdate"', '"typ":"RollingUpdate"')).toEqual([
      'Deployment/tollgate-worker spec.strategy: type is missing',
    ]);
    expect(worker('"512Mi"', '"1024Mi"')).toEqual(['Deployment/tollgate-worker: 1024Mi']);
    expect(worker('"250m"', '"0.25"')).toEqual(['Deployment/tollgate-worker: 0.25']);
    const redis = (field: string) =>
      changed('StatefulSet', 'tollgate-redis', (text) => text.replace(`"${field}"`, '"other"'));
    expect(redis('volumeMode')).toEqual([
      'StatefulSet/tollgate-redis spec.volumeClaimTemplates.*.spec: volumeMode is missing',
    ]);
  });
});

/**
 * `SessionPersistence` as a discriminated union, written by hand after the description of
 * https://github.com/kubernetes-sigs/gateway-api/pull/4873, because no package ships these CRDs: `cookie` replaces
 * `cookieConfig`, `cookie.name` is an HTTP header name (a token of RFC 9110 section 5.6.2), and the type Cookie requires
 * `cookie`.
 */
const COOKIE_NAME_SCHEMA = {
  type: 'object',
  additionalProperties: false,
  required: ['type', 'cookie'],
  properties: {
    type: { const: 'Cookie' },
    absoluteTimeout: { type: 'string' },
    idleTimeout: { type: 'string' },
    cookie: {
      type: 'object',
      additionalProperties: false,
      properties: {
        name: { type: 'string', minLength: 1, maxLength: 256, pattern: "^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$" },
        lifetimeType: { enum: ['Permanent', 'Session'] },
      },
    },
  },
};

describeWith(KUBECTL, 'the HTTPRoute', () => {
  interface Route {
    readonly spec: { readonly rules: readonly { readonly sessionPersistence?: object }[] };
  }
  const routeWith = (...others: string[]) => buildWith(['gateway-api', ...others]).get<Route>('HTTPRoute', 'tollgate');
  const persistenceOf = ({ spec }: Route) => spec.rules[0]?.sessionPersistence;
  const isUnion = new Ajv().compile(COOKIE_NAME_SCHEMA);

  it('has sessionName in the released experimental channel, and the later union refuses it', async () => {
    const route = routeWith();
    expect(persistenceOf(route)).toEqual({ type: 'Cookie', sessionName: 'tollgate_node' });
    expect(await schemaProblems(route)).toEqual([]);
    expect(isUnion(persistenceOf(route))).toBe(false);
  });

  it('has cookie.name with gateway-api-cookie-name, and the released channel refuses it', async () => {
    const route = routeWith('gateway-api-cookie-name');
    expect(isUnion(persistenceOf(route))).toBe(true);
    expect(persistenceOf(route)).toEqual({ type: 'Cookie', cookie: { name: 'tollgate_node' } });
    expect(await schemaProblems(route)).toEqual([expect.stringContaining('sessionPersistence.cookie: unknown field')]);
  });

  it('has no session persistence with gateway-api-standard', async () => {
    const route = routeWith('gateway-api-standard');
    expect(persistenceOf(route)).toBeUndefined();
    expect(await schemaProblems(route)).toEqual([]);
  });
});

import { upgrade } from './carriers.ts';
import type { Surface } from './meter.ts';
import { FEW_TEXTS, type Shape, TEXTS } from './shapes.ts';

const PATHS = ['/ws', '/ws/secure', '/ws/user_1', '/ws/v1/user_1', '/ws/mcp', '/socket.io/?EIO=4&transport=websocket'];
/** Credential headers, which each path reads, and headers that a server, a library or a proxy reads. */
const CREDENTIALS = ['sec-websocket-protocol', 'authorization'];
const OTHERS = [
  'x-forwarded-for',
  'origin',
  'host',
  'cookie',
  'traceparent',
  'sec-websocket-extensions',
  'sec-websocket-key',
  'user-agent',
  'x-service-id',
];
/** Prefixes that let the input pass the first checks. */
const PREFIXES: Readonly<Record<string, readonly string[]>> = {
  'sec-websocket-protocol': ['', 'jwt-auth, jwt.', 'jwt-auth.'],
  authorization: ['', 'Bearer ', 'Service-Token '],
  'x-forwarded-for': ['', '192.0.2.1, ['],
};
const PARAMETERS = ['ticket', 'after', 'epoch', 'sid', 'EIO', 'transport', 'other'];
const FEW_PARAMETERS: Readonly<Record<string, readonly string[]>> = {
  '/ws': ['ticket', 'after', 'other'],
  '/socket.io/?EIO=4&transport=websocket': ['sid', 'other'],
};
/** Node accepts heads of 16 KiB. */
const SIZES = [2_000, 14_000] as const;
/** Base64 of an unsigned JWT whose payload has the given size. */
const UNSIGNED: Shape = {
  name: 'a JWT, unsigned',
  make: (size) => {
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url');
    return `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ sub: 'u', a: 'a'.repeat(size / 2) })}.c2lnbmF0dXJl`;
  },
};

/** @param all every header and parameter on every path; otherwise each path with those that differ there */
export function upgradeSurfaces(url: string, { all }: { readonly all: boolean }): Surface[] {
  return PATHS.flatMap((path, at) => [
    ...headerSurfaces(url, path, { names: all || at === 0 ? [...CREDENTIALS, ...OTHERS] : CREDENTIALS, all }),
    ...querySurfaces(url, path, all ? PARAMETERS : (FEW_PARAMETERS[path] ?? [])),
    ...pathSurfaces(url, path),
  ]);
}

function headerSurfaces(
  url: string,
  path: string,
  { names, all }: { readonly names: readonly string[]; readonly all: boolean },
): Surface[] {
  return names.flatMap((name) =>
    (PREFIXES[name] ?? ['']).map((prefix) => ({
      family: `upgrade, \`${name}\``,
      name: `${name}: ${prefix}… at ${path}`,
      sizes: SIZES,
      shapes: [
        ...(path === '/ws' || (all && CREDENTIALS.includes(name)) ? TEXTS : FEW_TEXTS),
        ...(prefix === 'Bearer ' ? [UNSIGNED] : []),
      ],
      send: (input: string) => upgrade({ url, path, headers: { [name]: `${prefix}${input}` } }),
    })),
  );
}

/** A space would end the request target. */
const inUrl = (input: string) => input.replaceAll(' ', '+');

function querySurfaces(url: string, path: string, names: readonly string[]): Surface[] {
  return names.map((name) => ({
    family: `query, \`${name}\``,
    name: `${path}?${name}=…`,
    sizes: SIZES,
    shapes: TEXTS,
    send: (input: string) => upgrade({ url, path: `${path}${path.includes('?') ? '&' : '?'}${name}=${inUrl(input)}` }),
  }));
}

/** The path itself, of an endpoint and of none. */
function pathSurfaces(url: string, path: string): Surface[] {
  if (!path.endsWith('user_1')) return [];
  const prefix = path.slice(0, -'user_1'.length);
  return ['', 'x/'].map((between) => ({
    family: 'request target of an upgrade',
    name: `${prefix}${between}…`,
    sizes: SIZES,
    shapes: TEXTS,
    send: (input: string) => upgrade({ url, path: `${prefix}${between}${inUrl(input)}` }),
  }));
}

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { closeAfter } from './open-resources.ts';

export interface TokenPair {
  readonly access_token: string;
  readonly refresh_token: string;
}

/** The npm package oidc-provider in a process of its own. */
export interface OidcProvider {
  readonly issuer: string;
  /** Calls a path of its control interface: see oidc-provider.mjs. */
  control(path: string, query?: Readonly<Record<string, string>>): Promise<{ readonly access_token?: string }>;
  /** Issues an access token and a refresh token of a user. */
  pair(sub: string, sid?: string): Promise<TokenPair>;
  /** The refresh tokens that were sent to it, and the number of grants that it has ended for a reuse. */
  refreshes(): Promise<{ readonly used: readonly string[]; readonly revoked: number }>;
  /** Issues an access token of a user. */
  token(sub: string, sid?: string): Promise<string>;
}

export async function startOidcProvider(): Promise<OidcProvider> {
  const program = new URL('./oidc-provider.mjs', import.meta.url).pathname;
  const child = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'ignore'] });
  closeAfter('file', () => void child.kill('SIGKILL'));
  const issuer = await firstUrl(child.stdout);
  const call = async (path: string, query: Readonly<Record<string, string>> = {}): Promise<unknown> => {
    const response = await fetch(`${issuer}/test/${path}?${new URLSearchParams(query)}`);
    if (!response.ok) throw new Error(`${path}: ${await response.text()}`);
    return response.json();
  };
  const control = async (path: string, query = {}) => (await call(path, query)) as { access_token?: string };
  const pair = async (sub: string, sid = `sid-${sub}`) => (await call('pair', { sub, sid })) as TokenPair;
  const refreshes = async () => (await call('refreshes')) as { used: string[]; revoked: number };
  const token = async (sub: string, sid = `sid-${sub}`) => (await control('token', { sub, sid })).access_token ?? '';
  return { issuer, control, token, pair, refreshes };
}

async function firstUrl(output: NodeJS.ReadableStream): Promise<string> {
  for await (const line of createInterface({ input: output })) if (line.startsWith('http://')) return line;
  throw new Error('oidc-provider ended without an address');
}

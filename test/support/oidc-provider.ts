import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { closeAfter } from './open-resources.ts';

/** The npm package oidc-provider in a process of its own. */
export interface OidcProvider {
  readonly issuer: string;
  /** Calls a path of its control interface: see oidc-provider.mjs. */
  control(path: string, query?: Readonly<Record<string, string>>): Promise<{ readonly access_token?: string }>;
  /** Issues an access token of a user. */
  token(sub: string, sid?: string): Promise<string>;
}

export async function startOidcProvider(): Promise<OidcProvider> {
  const program = new URL('./oidc-provider.mjs', import.meta.url).pathname;
  const child = spawn(process.execPath, [program], { stdio: ['ignore', 'pipe', 'ignore'] });
  closeAfter('file', () => void child.kill('SIGKILL'));
  const issuer = await firstUrl(child.stdout);
  const control: OidcProvider['control'] = async (path, query = {}) => {
    const response = await fetch(`${issuer}/test/${path}?${new URLSearchParams(query)}`);
    if (!response.ok) throw new Error(`${path}: ${await response.text()}`);
    return (await response.json()) as { access_token?: string };
  };
  const token = async (sub: string, sid = `sid-${sub}`) => (await control('token', { sub, sid })).access_token ?? '';
  return { issuer, control, token };
}

async function firstUrl(output: NodeJS.ReadableStream): Promise<string> {
  for await (const line of createInterface({ input: output })) if (line.startsWith('http://')) return line;
  throw new Error('oidc-provider ended without an address');
}

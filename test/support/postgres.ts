import { execFile, execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chownSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { freePort, LOOPBACK } from '../../scripts/lib/ports.ts';
import { ManagedProcess, whenReady } from '../../scripts/lib/processes.ts';
import { closeAfter } from './open-resources.ts';
import { POSTGRES } from './programs.ts';

const run = promisify(execFile);
const USER = 'tollgate';

/** A PostgreSQL of the file's own on loopback, without a password and without fsync. */
export interface PostgresServer {
  /** Returns the address of a new schema. */
  readonly newSchema: () => Promise<string>;
  /** Kills it with its connections; `start` recovers committed data. */
  readonly kill: () => Promise<void>;
  readonly start: () => Promise<void>;
}

export async function startPostgres(): Promise<PostgresServer> {
  const dir = mkdtempSync(join(tmpdir(), 'tollgate-postgres-'));
  const owner = unprivileged();
  if (owner) chownSync(dir, owner.uid, owner.gid);
  const data = join(dir, 'data');
  const initdb = POSTGRES.command.replace(/postgres$/, 'initdb');
  await run(initdb, ['-D', data, '-U', USER, '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync'], {
    cwd: dir,
    ...owner,
  });
  const port = await freePort();
  let server: ManagedProcess | undefined;
  const start = async () => {
    server = launch(dir, data, port, owner);
    await whenReady(server, { name: 'PostgreSQL', isReady: () => answers(port) });
  };
  const kill = async () => {
    // Its children end when they detect that it has ended.
    server?.kill('SIGKILL');
    await server?.exited;
  };
  closeAfter('file', async () => {
    // A fast shutdown, which closes connections.
    server?.kill('SIGINT');
    await server?.exited;
    rmSync(dir, { recursive: true, force: true });
  });
  await start();
  const newSchema = async () => {
    const name = `s${randomBytes(6).toString('hex')}`;
    await query(url(port), `CREATE SCHEMA ${name}`);
    return `${url(port)}?options=${encodeURIComponent(`-c search_path=${name}`)}`;
  };
  return { newSchema, kill, start };
}

/** Queries like a user with direct access to the database. */
export async function query<Row extends pg.QueryResultRow>(address: string, text: string, values: unknown[] = []) {
  const client = new pg.Client({ connectionString: address });
  await client.connect();
  try {
    return (await client.query<Row>(text, values)).rows;
  } finally {
    await client.end();
  }
}

const url = (port: number) => `postgres://${USER}@${LOOPBACK}:${port}/postgres`;

async function answers(port: number): Promise<boolean> {
  return query(url(port), 'SELECT 1').then(
    () => true,
    () => false,
  );
}

interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** PostgreSQL refuses to run as root. */
function unprivileged(): Owner | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (option: string) => Number(execFileSync('id', [option, 'nobody'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

function launch(dir: string, data: string, port: number, owner: Owner | undefined): ManagedProcess {
  const settings = {
    listen_addresses: LOOPBACK,
    unix_socket_directories: dir,
    fsync: 'off',
    full_page_writes: 'off',
    max_connections: '60',
    shared_buffers: '16MB',
    logging_collector: 'off',
  };
  const args = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  const server = [POSTGRES.command, '-D', data, '-p', String(port), ...args];
  // A change of the user clears the parent death signal, so it is set again afterwards.
  const drop = ['setpriv', `--reuid=${owner?.uid}`, `--regid=${owner?.gid}`, '--clear-groups', '--pdeathsig', 'KILL'];
  const command = owner ? [...drop, ...server] : server;
  // A working directory that its user may read.
  return new ManagedProcess({
    name: 'postgres',
    command: 'sh',
    args: ['-c', 'cd "$0" && exec "$@"', dir, ...command],
    env: process.env,
  });
}

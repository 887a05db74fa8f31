import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { closeAfter } from './open-resources.ts';

const run = promisify(execFile);

/** PEM files of a private certificate authority, and of a server certificate that it issued. */
export interface Certificates {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** @param name the subject of the server's certificate, e.g. `DNS:redis.test` or `IP:127.0.0.1` */
export async function makeCertificates(name: string): Promise<Certificates> {
  const dir = await mkdtemp(join(tmpdir(), 'tollgate-tls-'));
  closeAfter('file', () => rm(dir, { recursive: true, force: true }));
  const file = (part: string) => join(dir, part);
  const openssl = (...args: string[]) => run('openssl', args);
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  await openssl(
    'req',
    '-x509',
    ...newKey,
    '-days',
    '1',
    '-subj',
    '/CN=ca',
    '-keyout',
    file('ca.key'),
    '-out',
    file('ca'),
  );
  await openssl('req', ...newKey, '-subj', '/CN=redis', '-keyout', file('key'), '-out', file('request'));
  await writeFile(file('names'), `subjectAltName=${name}\n`);
  const signed = [
    '-CA',
    file('ca'),
    '-CAkey',
    file('ca.key'),
    '-CAcreateserial',
    '-days',
    '1',
    '-extfile',
    file('names'),
  ];
  await openssl('x509', '-req', '-in', file('request'), ...signed, '-out', file('cert'));
  return { ca: file('ca'), cert: file('cert'), key: file('key') };
}

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess, start } from '../../scripts/lib/processes.ts';
import { httpUrl } from '../../scripts/lib/tollgate-processes.ts';
import { closeAfter } from './open-resources.ts';

/** Starts nginx in front of gateways, as its documentation shows a proxy for streams, until the end of the file. */
export async function startNginx(gatewayUrls: readonly string[]): Promise<{ url: string }> {
  const port = await freePort();
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-nginx-'));
  const servers = gatewayUrls.map((url) => `server ${new URL(url).host};`).join(' ');
  const file = join(folder, 'nginx.conf');
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder};`);
  await writeFile(
    file,
    `daemon off; master_process off; pid ${folder}/pid; error_log stderr;
events {}
http {
  access_log off; ${paths.join(' ')}
  upstream gateways { ${servers} }
  server {
    listen 127.0.0.1:${port};
    location / { proxy_pass http://gateways; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}`,
  );
  const child = await start({
    name: 'nginx',
    launch: () => {
      const args = ['-p', folder, '-c', file];
      return new ManagedProcess({ name: 'nginx', command: 'nginx', args, env: { PATH: process.env.PATH } });
    },
    isReady: async () => (await httpStatus(`${httpUrl(port)}/health/ready`)) === 200,
  });
  closeAfter('file', async () => {
    child.kill('SIGKILL');
    await child.exited;
    await rm(folder, { recursive: true, force: true });
  });
  return { url: httpUrl(port) };
}

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess, start } from '../../scripts/lib/processes.ts';
import { httpUrl } from '../../scripts/lib/tollgate-processes.ts';
import { closeAfter } from './open-resources.ts';

/** Starts nginx in front of gateways, as a reverse proxy with HTTP/1.1 upstreams, until the end of the file. */
export async function startNginx(gatewayUrls: readonly string[]): Promise<{ url: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-nginx-'));
  closeAfter('file', () => rm(folder, { recursive: true, force: true }));
  const port = await freePort();
  const file = join(folder, 'nginx.conf');
  await writeFile(file, configuration(folder, port, gatewayUrls));
  const args = ['-c', file, '-p', folder, '-g', 'daemon off; master_process off;', '-e', join(folder, 'error.log')];
  const child = await start({
    name: 'nginx',
    launch: () => new ManagedProcess({ name: 'nginx', command: 'nginx', args, env: { PATH: process.env.PATH } }),
    isReady: async () => (await httpStatus(`${httpUrl(port)}/health/ready`)) === 200,
  });
  closeAfter('file', async () => {
    child.kill('SIGKILL');
    await child.exited;
  });
  return { url: httpUrl(port) };
}

function configuration(folder: string, port: number, gatewayUrls: readonly string[]): string {
  const servers = gatewayUrls.map((url) => `    server ${new URL(url).host} max_fails=1 fail_timeout=2s;`);
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  return `pid ${folder}/nginx.pid;
events { worker_connections 256; }
http {
  access_log off;
${temporary.map((name) => `  ${name}_temp_path ${folder}/${name};`).join('\n')}
  upstream gateways {
${servers.join('\n')}
  }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://gateways;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }
  }
}
`;
}

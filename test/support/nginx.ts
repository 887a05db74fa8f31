import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePorts } from '../../scripts/lib/ports.ts';
import { httpStatus, ManagedProcess } from '../../scripts/lib/processes.ts';
import { httpUrl } from '../../scripts/lib/tollgate-processes.ts';
import type { Certificates } from './certificates.ts';
import { closeAfter } from './open-resources.ts';
import { startProxy, type TestProxy } from './test-proxy.ts';

/**
 * Starts nginx in front of gateways, as a reverse proxy with HTTP/1.1 upstreams, until the end of the file.
 * @param certificates of a second port with TLS and HTTP/2
 */
export async function startNginx(gatewayUrls: readonly string[], certificates?: Certificates): Promise<TestProxy> {
  const folder = await mkdtemp(join(tmpdir(), 'tollgate-nginx-'));
  closeAfter('file', () => rm(folder, { recursive: true, force: true }));
  const [port = 0, tlsPort = 0] = await freePorts(2);
  const file = join(folder, 'nginx.conf');
  const { cert, key } = certificates ?? {};
  const tls = cert && `listen 127.0.0.1:${tlsPort} ssl http2; ssl_certificate ${cert}; ssl_certificate_key ${key};`;
  await writeFile(file, configuration(folder, port, gatewayUrls, tls));
  const args = ['-c', file, '-p', folder, '-g', 'daemon off; master_process off;', '-e', join(folder, 'error.log')];
  return startProxy(
    {
      name: 'nginx',
      launch: () => new ManagedProcess({ name: 'nginx', command: 'nginx', args, env: { PATH: process.env.PATH } }),
      isReady: async () => (await httpStatus(`${httpUrl(port)}/health/ready`)) === 200,
    },
    { port, tlsPort },
  );
}

function configuration(folder: string, port: number, gatewayUrls: readonly string[], tls = ''): string {
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
    ${tls}
    location / {
      proxy_pass http://gateways;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }
  }
}
`;
}

import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { expect, it } from '@jest/globals';
import { TcpLink } from '../../torture/lib/links.ts';
import { closeAfter } from '../support/open-resources.ts';
import { until } from '../support/until.ts';

it('a link keeps the order of packets when its latency falls, and after silence', async () => {
  const echo = createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
  await once(echo, 'listening');
  closeAfter('test', () => new Promise((resolve) => echo.close(resolve)));
  const link = await TcpLink.start((echo.address() as AddressInfo).port);
  closeAfter('test', () => link.close());
  const client = connect({ port: link.port, host: '127.0.0.1', noDelay: true });
  closeAfter('test', () => void client.destroy());
  await once(client, 'connect');
  let received = '';
  client.setEncoding('utf8').on('data', (text: string) => {
    received += text;
  });
  let sent = '';
  const faults = [() => link.slow(30), () => link.heal(), () => link.silence(), () => link.heal(), () => link.slow(5)];
  for (let number = 0; number < 200; number++) {
    if (number % 20 === 0) faults[(number / 20) % faults.length]?.();
    const text = `${number} `;
    sent += text;
    client.write(text);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  link.heal();
  await until(() => received.length === sent.length);
  expect(received).toBe(sent);
});

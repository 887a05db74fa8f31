import { once } from 'node:events';
import { type AddressInfo, connect, createServer } from 'node:net';
import { expect, it } from '@jest/globals';
import { type LinkFault, TcpLink } from '../../torture/lib/links.ts';
import { closeAfter } from '../support/open-resources.ts';
import { until } from '../support/until.ts';

it('a link keeps the order of packets when faults of every kind begin and end', async () => {
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
  const faults: (LinkFault | undefined)[] = [
    { kind: 'slow', latencyMs: 30 },
    undefined,
    { kind: 'held', direction: 'replies' },
    { kind: 'narrow', bytesPerSecond: 20_000 },
    { kind: 'held', direction: 'requests' },
  ];
  let heal: (() => void) | undefined;
  for (let number = 0; number < 200; number++) {
    if (number % 20 === 0) {
      const fault = faults[(number / 20) % faults.length];
      heal?.();
      heal = fault && link.break(fault);
    }
    const text = `${number} `;
    sent += text;
    client.write(text);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  heal?.();
  await until(() => received.length === sent.length);
  expect(received).toBe(sent);
});

it('an abandoned connection stays open and carries nothing, while a new one works', async () => {
  const echo = createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
  await once(echo, 'listening');
  closeAfter('test', () => new Promise((resolve) => echo.close(resolve)));
  const link = await TcpLink.start((echo.address() as AddressInfo).port);
  closeAfter('test', () => link.close());
  const open = async () => {
    const socket = connect({ port: link.port, host: '127.0.0.1', noDelay: true });
    closeAfter('test', () => void socket.destroy());
    await once(socket, 'connect');
    let received = '';
    socket.setEncoding('utf8').on('data', (text: string) => {
      received += text;
    });
    return { socket, received: () => received };
  };
  const old = await open();
  old.socket.write('a');
  await until(() => old.received() === 'a');
  link.abandon();
  old.socket.write('b');
  const fresh = await open();
  fresh.socket.write('c');
  await until(() => fresh.received() === 'c');
  expect([old.received(), old.socket.destroyed]).toEqual(['a', false]);
});

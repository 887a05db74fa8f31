import type { ServerResponse } from 'node:http';
import { expect, it } from '@jest/globals';
import { Attempts } from '../../src/auth/client/attempts.ts';
import { systemClock } from '../../src/lib/clock.ts';
import { ISSUED, json, startFaultyAuthServer } from '../support/faulty-auth-server.ts';
import { closeAfter } from '../support/open-resources.ts';
import { until } from '../support/until.ts';

const CONCURRENT = 6;

it('a request to the auth service gets its turn although all before it in the queue were taken back', async () => {
  const server = await startFaultyAuthServer();
  const held: ServerResponse[] = [];
  server.behaviour = (response) => void held.push(response);
  const attempts = new Attempts({ clock: systemClock }, { timeoutMs: 20_000, onBreakerChange: () => undefined });
  closeAfter('test', () => attempts.close());
  const send = (signal?: AbortSignal) => {
    return attempts.send({ url: new URL(`${server.url}/token`), form: {} }, ({ status }) => status, signal);
  };

  const running = Array.from({ length: CONCURRENT }, () => send());
  await until(() => held.length === CONCURRENT);
  const abort = new AbortController();
  const takenBack = Array.from({ length: CONCURRENT }, () => send(abort.signal));
  const last = send();
  abort.abort();
  server.behaviour = json(ISSUED);
  for (const response of held) json(ISSUED)(response, { path: '', authorization: undefined, form: {} });

  expect(await Promise.all(running)).toEqual(Array(CONCURRENT).fill(200));
  for (const one of takenBack) await expect(one).rejects.toThrow();
  expect(await last).toBe(200);
  expect(server.requests).toHaveLength(CONCURRENT + 1);
});

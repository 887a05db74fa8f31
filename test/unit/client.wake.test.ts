import { afterEach, describe, expect, it } from '@jest/globals';
import { Tollgate } from '../../packages/client/src/tollgate.ts';
import { onWake } from '../../packages/client/src/wake.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { ScriptedTransport } from '../support/scripted-transport.ts';
import { until } from '../support/until.ts';

class FakeDocument extends EventTarget {
  visibilityState = 'hidden';
}

const globals = globalThis as Record<string, unknown>;
const PAGE_MEMBERS = ['document', 'addEventListener', 'removeEventListener'];
const before = PAGE_MEMBERS.map((name) => [name, globals[name]] as const);
afterEach(() => {
  for (const [name, value] of before) globals[name] = value;
});

/** Gives the process the members of a browser's page. */
function openPage(): { page: EventTarget; document: FakeDocument } {
  const [page, document] = [new EventTarget(), new FakeDocument()];
  Object.assign(globals, {
    document,
    addEventListener: page.addEventListener.bind(page),
    removeEventListener: page.removeEventListener.bind(page),
  });
  return { page, document };
}

describe('a page that wakes up', () => {
  it('wakes the client when it is online again, restored or visible, until the listeners are removed', () => {
    const { page, document } = openPage();
    let wakes = 0;
    let saves = 0;
    const remove = onWake(
      () => {
        wakes += 1;
      },
      () => {
        saves += 1;
      },
    );
    page.dispatchEvent(new Event('online'));
    page.dispatchEvent(new Event('pageshow'));
    document.dispatchEvent(new Event('visibilitychange'));
    expect(wakes).toBe(2);
    page.dispatchEvent(new Event('pagehide'));
    expect(saves).toBe(2);
    document.visibilityState = 'visible';
    document.dispatchEvent(new Event('visibilitychange'));
    expect(wakes).toBe(3);
    remove();
    for (const target of [page, document]) {
      for (const type of ['online', 'pageshow', 'pagehide', 'visibilitychange']) target.dispatchEvent(new Event(type));
    }
    expect([wakes, saves]).toEqual([3, 2]);
  });

  it('connects at once while it waits, and drops a connection that does not answer a ping', async () => {
    const { page } = openPage();
    const transport = new ScriptedTransport();
    const clock = new ManualClock();
    const client = new Tollgate({ url: 'http://gateway.test', getToken: () => 't', transport: transport.open, clock });
    client.connect();
    await until(() => transport.connections.length === 1);
    transport.current.close();
    expect(client.state).toBe('waiting');
    page.dispatchEvent(new Event('online'));
    await until(() => transport.connections.length === 2);
    transport.current.welcome();
    clock.advance(1);
    page.dispatchEvent(new Event('online'));
    expect(transport.current.last('ping')).toEqual({ timestamp: clock.now() });
    transport.current.message('pong');
    clock.advance(5_000);
    expect(client.state).toBe('connected');
    page.dispatchEvent(new Event('online'));
    clock.advance(5_000);
    expect(transport.connections[1]?.closedByClient).toBe(true);
    client.close();
  });

  it('does nothing outside of a browser', () => {
    expect(
      onWake(
        () => {},
        () => {},
      )(),
    ).toBeUndefined();
  });
});

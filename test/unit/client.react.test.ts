import { afterEach, describe, expect, it } from '@jest/globals';
import { createElement, type ReactNode, StrictMode } from 'react';
import { renderToString } from 'react-dom/server';
import { Tollgate } from '../../packages/client/src/tollgate.ts';
import {
  TollgateProvider,
  useConnection,
  useRun,
  useThread,
  useTollgate,
  useUsage,
} from '../../packages/react/src/main.ts';
import { RunText } from '../../packages/react/src/run-text.ts';
import { ScriptedTransport } from '../support/scripted-transport.ts';

const globals = globalThis as Record<string, unknown>;
const WebSocketClass = globalThis.WebSocket;
afterEach(() => {
  globals.WebSocket = WebSocketClass;
});

function Page(): ReactNode {
  const [connection, run, thread, usage] = [useConnection(), useRun(), useThread('t1'), useUsage()];
  return [connection.state, run.state, run.text, thread.isLoading, thread.messages.length, usage.isLoading].join(' ');
}

describe('the hooks on a server', () => {
  it('render their initial state, connect nothing and need no WebSocket', () => {
    Reflect.deleteProperty(globalThis, 'WebSocket');
    const transport = new ScriptedTransport();
    const getToken = () => {
      throw new Error('a server renders for no user');
    };
    for (const options of [{ transport: transport.open }, {}]) {
      const provider = { options: { url: 'http://gateway.test', getToken, ...options } };
      const page = createElement(TollgateProvider, provider, createElement(Page));
      expect(renderToString(createElement(StrictMode, null, page))).toBe('idle idle  true 0 true');
    }
    expect(transport.connections).toEqual([]);
  });

  it('use the client that the application gives', () => {
    const client = new Tollgate({ url: 'http://gateway.test', getToken: () => null });
    const Given = () => (useTollgate() === client ? 'the same' : 'another');
    expect(renderToString(createElement(TollgateProvider, { client }, createElement(Given)))).toBe('the same');
  });

  it('name what is missing outside of a provider', () => {
    expect(() => renderToString(createElement(Page))).toThrow('This hook needs a <TollgateProvider> above it.');
  });
});

describe('the text of a run', () => {
  it('joins the thoughts of a step, and drops those of a step that was replaced', () => {
    const text = new RunText();
    const add = (fields: object) => text.add({ type: 'agent_thinking', ...fields } as Parameters<RunText['add']>[0]);
    add({ step: 1, thought: 'One ' });
    add({ step: 1, thought: 'thought.' });
    text.add({ type: 'agent_started' } as Parameters<RunText['add']>[0]);
    add({ step: 2, thought: 'Interrup' });
    expect(text.value).toBe('One thought.\n\nInterrup');
    add({ step: 3, replaces_step: 2, thought: 'Again.' });
    expect(text.value).toBe('One thought.\n\nAgain.');
  });
});

import { describe, expect, it } from '@jest/globals';
import type { InputRequestKind } from '../../src/catalogue/tool-servers.ts';
import { MissingCapability, UpstreamFault, UpstreamRefusal } from '../../src/upstreams/faults.ts';
import { capabilitiesFor, missingCapability, parseInputRequests } from '../../src/upstreams/input-requests.ts';

const ALL = ['elicitation', 'url_elicitation', 'sampling', 'roots'] as const;
const form = { method: 'elicitation/create', params: { message: 'Who?', requestedSchema: { type: 'object' } } };
const page = { method: 'elicitation/create', params: { mode: 'url', message: 'Who?', url: 'https://example.com' } };
const sampling = { method: 'sampling/createMessage', params: { messages: [], maxTokens: 1 } };
const may = (...allowedInputRequests: InputRequestKind[]) => ({ name: 'remote', allowedInputRequests });
const caller = (capabilities: object) => ({
  capabilities: { ...capabilities },
  inputResponses: undefined,
  requestState: undefined,
});
const EVERYTHING = caller({ elicitation: { form: {}, url: {} }, sampling: {}, roots: {} });

describe('a server learns whether its caller supports input requests', () => {
  it.each([
    ['nothing of a caller that says nothing', ALL, {}, {}],
    ['nothing where the operator allows nothing', [], { elicitation: {}, sampling: {}, roots: {} }, {}],
    ['by form, where no mode is said', ALL, { elicitation: {} }, { elicitation: { form: {} } }],
    ['by page, where only that is said', ALL, { elicitation: { url: {} } }, { elicitation: { url: {} } }],
    [
      'by form alone, where pages are not allowed',
      ['elicitation'],
      EVERYTHING.capabilities,
      { elicitation: { form: {} } },
    ],
    ['with the members of sampling', ALL, { sampling: { tools: { a: 1 }, x: {} } }, { sampling: { tools: {} } }],
    ['nothing that is not in the form of a capability', ALL, { elicitation: true, sampling: [], roots: 'x' }, {}],
    ['nothing else', ALL, { roots: { listChanged: true }, experimental: { x: {} } }, { roots: {} }],
  ] as const)('%s', (_what, allowedInputRequests, declared, sent) => {
    expect(capabilitiesFor(allowedInputRequests, declared)).toEqual(sent);
  });
});

describe('the questions of a server', () => {
  it('are passed on as they are, with its state', () => {
    const inputRequests = { who: form, words: sampling };
    expect(parseInputRequests({ inputRequests, requestState: 's' }, may(...ALL), EVERYTHING)).toEqual({
      inputRequests,
      requestState: 's',
      server: 'remote',
    });
    expect(parseInputRequests({ requestState: 's' }, may(...ALL), caller({}))).toMatchObject({ inputRequests: {} });
  });

  it.each([
    ['of a kind that MCP does not have', { inputRequests: { a: { method: 'tools/call' } } }],
    ['that are no requests', { inputRequests: { a: 'Who?' } }],
    ['that are no map', { inputRequests: [form] }],
    ['of more than sixteen', { inputRequests: Object.fromEntries(Array.from({ length: 17 }, (_, at) => [at, form])) }],
    ['of more than 32 KiB', { inputRequests: { a: { ...form, params: { message: 'x'.repeat(33_000) } } } }],
    ['with a state of more than 16 KiB', { inputRequests: { a: form }, requestState: 'é'.repeat(8_193) }],
    [
      'with a state that JSON makes larger than that',
      { inputRequests: { a: form }, requestState: '\u0000'.repeat(3_000) },
    ],
    ['with a state that is no text', { inputRequests: { a: form }, requestState: 7 }],
  ])('%s are a fault of its own', (_what, answer) => {
    expect(() => parseInputRequests(answer, may(...ALL), EVERYTHING)).toThrow(UpstreamFault);
  });

  it('that the caller has not declared are named to it', () => {
    const ask = () =>
      parseInputRequests(
        { inputRequests: { a: page, b: sampling, c: form } },
        may(...ALL),
        caller({ elicitation: {} }),
      );
    expect(ask).toThrow(new MissingCapability({ elicitation: { url: {} }, sampling: {} }));
    expect(ask).toThrow(expect.objectContaining({ required: { elicitation: { url: {} }, sampling: {} } }));
  });

  it('that the operator does not allow are nothing that the caller could declare', () => {
    for (const input of [EVERYTHING, caller({})]) {
      expect(() => parseInputRequests({ inputRequests: { a: page } }, may('elicitation'), input)).toThrow(
        UpstreamRefusal,
      );
    }
  });
});

describe("a server's word that it needs a capability", () => {
  const word = (requiredCapabilities: unknown) => new UpstreamRefusal(-32021, 'Missing', { requiredCapabilities });

  it('is passed on as far as the caller can do something about it', () => {
    expect(missingCapability(word({ sampling: { x: 'anything' }, other: {} }), may(...ALL), caller({}))).toMatchObject({
      required: { sampling: {} },
    });
  });

  it.each([
    ['what the operator does not allow', ['roots'] as const, { sampling: {} }],
    ['what the caller has declared', ALL, { roots: {} }],
    ['nothing that is known', ALL, { tasks: {} }],
    ['what has no form', ALL, 'sampling'],
  ])('is none for %s', (_what, allowedInputRequests, required) => {
    const sent = missingCapability(word(required), may(...allowedInputRequests), caller({ roots: {} }));
    expect(sent).toBeInstanceOf(UpstreamRefusal);
    expect(sent?.message).toMatch(/not forwarded/);
  });

  it('is no other refusal', () => {
    expect(missingCapability(new UpstreamRefusal(-32602, 'No such tool'), may(...ALL), caller({}))).toBeUndefined();
  });
});

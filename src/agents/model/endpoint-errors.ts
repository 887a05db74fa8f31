import { parseJson } from '../../lib/json.ts';
import type { Fields } from '../../protocol/messages.ts';
import { type FaultReason, ModelFault } from './fault.ts';
import { asList, asNumber, asObject, asText } from './json.ts';

/** An error as an endpoint reports it. */
export interface EndpointError {
  /** `code`, else `type`; only if it is safe to log. */
  readonly code: string | undefined;
  /** The parameter that it names; only if it is safe to log. */
  readonly param: string | undefined;
  /** HTTP status that the error itself contains. */
  readonly status: number | undefined;
  /** All words of the error, for a search. They may contain the request and must not be logged. */
  readonly words: string;
}

/** Codes and parameter names are identifiers. Anything else could be a text with a key in it. */
const IDENTIFIER = /^[\w.[\]-]{1,64}$/;
const NO_ERROR: EndpointError = { code: undefined, param: undefined, status: undefined, words: '' };
const MAX_WORDS = 4_096;

/** Returns the error in a body or an event; undefined if it contains none. */
export function errorIn(value: unknown): EndpointError | undefined {
  const [first] = Array.isArray(value) ? value : [value];
  const body = asObject(first);
  if (!body) return undefined;
  // Some endpoints send the fields of an error with every chunk, empty.
  const error = filled(body.error) ?? filled(asObject(asList(body.choices)[0])?.error);
  if (typeof error === 'string') return { ...NO_ERROR, words: wordsOf({ error }) };
  const nested = asObject(error);
  if (nested) return described(nested, body);
  if (body.object === 'error' || asText(body.type)?.endsWith('error')) return described(body);
  if (filled(body.error_type) ?? filled(body.error_message)) {
    return described({ type: body.error_type, code: body.status_code, message: body.error_message });
  }
  return undefined;
}

/** Returns the error of a response that is not successful, in whatever form it is. */
export function errorOfBody(text: string): EndpointError {
  const parsed = parseJson(text);
  const found = errorIn(parsed);
  if (found) return found;
  const body = asObject(parsed);
  // Pydantic reports `{ detail: [{ type, loc: ['body', <field>], msg }] }`.
  const detail = asObject(asList(body?.detail)[0]);
  if (!detail) return { ...NO_ERROR, words: text.slice(0, MAX_WORDS) };
  const loc = Array.isArray(detail.loc) ? detail.loc.filter((part) => part !== 'body') : [];
  return { code: identifier(detail.type), param: identifier(loc[0]), status: undefined, words: wordsOf(detail) };
}

function described(error: Fields, around: Fields = {}): EndpointError {
  // Aggregators put the error of the provider behind them into `metadata.raw`, as text.
  const raw = errorIn(parseJson(asText(asObject(error.metadata)?.raw) ?? ''));
  const numbers = [error.code, error.status, around.status, around.status_code].map(asNumber);
  const code = [error.code, error.type, error.status].find(
    (value) => identifier(value) && asNumber(value) === undefined,
  );
  return {
    code: raw?.code ?? identifier(code) ?? identifier(String(error.code ?? '')),
    param: raw?.param ?? identifier(error.param),
    status: numbers.find((number) => number !== undefined && number >= 300 && number < 600),
    words: `${wordsOf(error)} ${raw?.words ?? ''}`,
  };
}

function filled(value: unknown): unknown {
  const fields = asObject(value);
  if (fields) return Object.keys(fields).length > 0 ? fields : undefined;
  return typeof value === 'string' && value !== '' ? value : undefined;
}

const identifier = (value: unknown) => (typeof value === 'string' && IDENTIFIER.test(value) ? value : undefined);
const wordsOf = (error: Fields) => JSON.stringify(error).slice(0, MAX_WORDS);

/** Client error statuses that can be temporary: timeouts, conflicts and rate limits. */
const RETRYABLE_STATUS: ReadonlySet<number> = new Set([408, 409, 425, 429]);

/** Words by which endpoints name a reason, most specific first. */
const NAMED: readonly (readonly [RegExp, FaultReason, boolean])[] = [
  [
    /context.?length|maximum context|context (window|size)|prompt is too long|too many tokens/i,
    'context_length',
    false,
  ],
  [/content.?filter|content.?policy|responsibleaipolicy|content management policy/i, 'content_filter', false],
  [/insufficient.?(quota|balance|credit)|billing|payment.?required/i, 'payment', false],
  [/invalid.?api.?key|authentication|unauthorized|permission.?(denied|error)/i, 'authentication', false],
  [/overloaded|unavailable|rate.?limit|timeout|timed out|server.?error|internal.?error|capacity/i, 'unavailable', true],
  [/invalid.?request|not.?found|unsupported|bad.?request|invalid.?argument/i, 'request', false],
];

/** Converts an error response into a fault. @param retryAfterMs from `Retry-After` */
export function responseFault(status: number, error: EndpointError, retryAfterMs: number | undefined): ModelFault {
  const { reason, retryable } = ofStatus(status, error.words);
  const { code, param } = error;
  return new ModelFault(`the model answered HTTP ${status}`, { reason, retryable, status, retryAfterMs, code, param });
}

/**
 * Converts an error that arrived after HTTP 200 into a fault.
 * @param otherwise whether an error without a known status or word is retryable
 */
export function reportedFault(error: EndpointError, otherwise: boolean): ModelFault {
  const { code, param, status } = error;
  const named = NAMED.find(([words]) => words.test(error.words));
  const known =
    status === undefined ? named && { reason: named[1], retryable: named[2] } : ofStatus(status, error.words);
  const { reason, retryable } = known ?? { reason: 'error' as const, retryable: otherwise };
  return new ModelFault('the model reported an error', { reason, retryable, status, code, param });
}

function ofStatus(status: number, words: string): { readonly reason: FaultReason; readonly retryable: boolean } {
  if (status === 402) return { reason: 'payment', retryable: false };
  if (status === 401) return { reason: 'authentication', retryable: false };
  const named = NAMED.find(([pattern]) => pattern.test(words));
  // A quota that is used up is reported as 429 too, and waiting for it is useless.
  if (named?.[1] === 'payment' && status < 500) return { reason: 'payment', retryable: false };
  if (status === 429) return { reason: 'rate_limited', retryable: true };
  if (status >= 500 || RETRYABLE_STATUS.has(status)) return { reason: 'unavailable', retryable: true };
  if (status === 403) return { reason: 'authentication', retryable: false };
  const reason = named && !named[2] && named[1] !== 'authentication' ? named[1] : 'request';
  return { reason, retryable: false };
}

import { request } from 'undici';
import type { Clock } from '../../lib/clock.ts';
import { withDeadline } from '../../lib/with-deadline.ts';

/** Timeout of a request, to the last byte. */
const TIMEOUT_MS = 2_000;
/** A key has about 500 bytes, and ten times as many with a certificate chain. */
const MAX_DOCUMENT_CHARS = 256 * 1024;

/** A response with another status than 200. */
export class UnexpectedStatus extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`status ${status}`);
    this.status = status;
  }
}

/**
 * Requests a public JSON document of an issuer. Redirects are not followed.
 * @throws UnexpectedStatus; Error for an invalid or too long document, or a timeout. No error contains the document
 */
export function fetchJson(url: string, clock: Clock): Promise<unknown> {
  const timeoutError = () => new Error(`no response within ${TIMEOUT_MS} ms`);
  return withDeadline({ clock, timeoutMs: TIMEOUT_MS, timeoutError, signal: undefined }, async (signal) => {
    const { statusCode, headers, body } = await request(url, { signal, headers: { accept: 'application/json' } });
    let text = '';
    for await (const piece of body.setEncoding('utf8')) {
      text += piece;
      if (text.length > MAX_DOCUMENT_CHARS) throw new Error(`more than ${MAX_DOCUMENT_CHARS} characters`);
    }
    if (statusCode !== 200) throw new UnexpectedStatus(statusCode);
    try {
      return JSON.parse(text);
    } catch {
      const [type = 'no content type'] = String(headers['content-type'] ?? '').split(';', 1);
      throw new Error(`not JSON (${type.slice(0, 64)})`);
    }
  });
}

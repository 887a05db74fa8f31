import { z } from 'zod';
import type { Clock } from '../../lib/clock.ts';
import { withoutTrailing } from '../../lib/text.ts';
import { fetchJson, UnexpectedStatus } from './fetch-json.ts';

const Document = z.object({ issuer: z.string(), jwks_uri: z.string() });

/**
 * Returns the well-known URLs of the metadata of an issuer in order of preference: OpenID Connect Discovery section 4
 * appends the segment to the issuer, RFC 8414 section 3.1 inserts it between host and path.
 */
export function metadataUrls(issuer: string): readonly [openId: URL, oauth: URL] {
  const url = new URL(issuer);
  const path = withoutTrailing(url.pathname, '/');
  return [
    new URL(`${path}/.well-known/openid-configuration`, url.origin),
    new URL(`/.well-known/oauth-authorization-server${path}`, url.origin),
  ];
}

/**
 * Discovers the URL of an issuer's keys.
 * @throws Error if no metadata can be read, or if it belongs to another issuer
 */
export async function discoverKeys(issuer: string, clock: Clock): Promise<string> {
  let failure: unknown;
  for (const url of metadataUrls(issuer)) {
    let document: unknown;
    try {
      document = await fetchJson(String(url), clock);
    } catch (error) {
      failure = error;
      // Only an answer shows that the issuer publishes the other document.
      if (error instanceof UnexpectedStatus && error.status < 500) continue;
      throw new Error(`metadata at ${url.pathname}`, { cause: error });
    }
    return readKeysUrl(document, issuer);
  }
  throw new Error('no metadata at the well-known paths', { cause: failure });
}

/** RFC 8414 section 3.3: metadata of another issuer must not be used. */
function readKeysUrl(document: unknown, issuer: string): string {
  const read = Document.safeParse(document);
  if (!read.success) throw new Error('the metadata has no issuer or no jwks_uri');
  if (read.data.issuer !== issuer) throw new Error('the metadata is of another issuer');
  const url = URL.parse(read.data.jwks_uri);
  const isSafe = url?.protocol === 'https:' || (url?.protocol === 'http:' && issuer.startsWith('http:'));
  if (!url || !isSafe) throw new Error('the jwks_uri of the metadata is no https URL');
  return url.href;
}

import type { IncomingMessage } from 'node:http';

/** `uri-host [ ":" port ]` of RFC 9110 section 7.2: a name, an IPv4 address or a bracketed IP literal. */
const HOST = /^(?:\[[0-9A-Fa-f:.]+\]|[\w.~%!$&'()*+,;=-]*)(?::\d{0,5})?$/;

/**
 * Whether a request names its host as RFC 9112 section 3.2 asks for: once, in a valid form. HTTP/1.0 knows no Host, and
 * health checks still use that version.
 */
export function hasValidHost({ headersDistinct, httpVersion }: IncomingMessage): boolean {
  const hosts = headersDistinct.host ?? [];
  if (hosts.length === 0) return httpVersion === '1.0';
  return hosts.length === 1 && HOST.test(hosts[0] ?? '');
}

import type { IncomingMessage } from 'node:http';
import { headerValues } from './header-values.ts';

/** `uri-host [ ":" port ]` of RFC 9110 section 7.2: a name, an IPv4 address, or an IP literal in brackets. */
const HOST = /^(?:\[[0-9A-Fa-f:.]+\]|[\w.~%!$&'()*+,;=-]*)(?::\d{0,5})?$/;

/**
 * Whether a request has exactly one valid Host header, as RFC 9112 section 3.2 requires. An HTTP/1.0 request may omit
 * it, because that version does not define Host and health checks still use it.
 */
export function hasValidHost(request: IncomingMessage): boolean {
  const hosts = headerValues(request, 'host');
  if (hosts.length === 0) return request.httpVersion === '1.0';
  return hosts.length === 1 && HOST.test(hosts[0] ?? '');
}

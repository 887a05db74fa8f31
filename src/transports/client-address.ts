import type { IncomingMessage } from 'node:http';
import { isIP, isIPv4 } from 'node:net';

/** A provider assigns at least a /64 to a customer (RFC 6177 section 2), who can use every address in it. */
const NETWORK_GROUPS = 4;
const GROUPS = 8;
/** Maximum characters of one entry of `X-Forwarded-For`, including surrounding space. */
const MAX_ENTRY_LENGTH = 256;

/**
 * Address for which a request is counted: the client's IPv4 address, or the /64 of its IPv6 address.
 *
 * Each trusted proxy appends the address of its peer to `X-Forwarded-For`. With N proxies, the outermost one wrote the
 * N-th entry from the right, and the client may have forged everything to the left of it. If the header is too short or
 * has no address at that position, those proxies did not write it, and the address of the socket is used.
 * @param trustedProxyHops number of trusted proxies; with 0 the header is ignored
 */
export function clientAddress(request: IncomingMessage, trustedProxyHops: number): string {
  const own = request.socket.remoteAddress ?? '';
  if (trustedProxyHops === 0) return groupedAddress(own);
  // Node joins several headers of this name with commas, in order.
  const forwarded = withoutPort(entryFromRight(String(request.headers['x-forwarded-for'] ?? ''), trustedProxyHops));
  return groupedAddress(isIP(forwarded) ? forwarded : own);
}

/** The N-th entry from the right; empty if there are fewer. Does not read the header to the left of it. */
function entryFromRight(header: string, position: number): string {
  let end = header.length;
  for (let skipped = 1; skipped < position; skipped++) {
    // `lastIndexOf` treats a negative position as 0.
    const comma = end > 0 ? header.lastIndexOf(',', end - 1) : -1;
    if (comma < 0) return '';
    end = comma;
  }
  const start = end > 0 ? header.lastIndexOf(',', end - 1) + 1 : 0;
  return end - start > MAX_ENTRY_LENGTH ? '' : header.slice(start, end).trim();
}

/** Removes the port that some proxies append: `192.0.2.1:4711`, `[2001:db8::1]:4711`. */
function withoutPort(entry: string): string {
  const bracketed = /^\[([^\]]+)\](?::\d+)?$/.exec(entry);
  if (bracketed?.[1] !== undefined) return bracketed[1];
  const [address = '', , ...rest] = entry.split(':');
  return rest.length === 0 && isIPv4(address) ? address : entry;
}

/** Returns an IPv4 address unchanged, and the /64 of an IPv6 address. */
export function groupedAddress(address: string): string {
  if (isIP(address) !== 6) return address;
  const groups = groupsOf(address);
  // An IPv4-mapped address (RFC 4291 section 2.5.5.2), as reported by a dual-stack socket.
  const mapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff;
  if (mapped) return [6, 7].flatMap((at) => [(groups[at] ?? 0) >> 8, (groups[at] ?? 0) & 0xff]).join('.');
  const network = groups.slice(0, NETWORK_GROUPS).map((group) => group.toString(16));
  return `${network.join(':')}::/64`;
}

/** The eight groups of a valid IPv6 address. RFC 4291 section 2.2. */
function groupsOf(address: string): number[] {
  const [bare = ''] = address.split('%');
  const [head = '', tail] = bare.split('::');
  const [first, last] = [segments(head), segments(tail ?? '')];
  return [...first, ...Array<number>(Math.max(0, GROUPS - first.length - last.length)).fill(0), ...last];
}

function segments(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((part) => {
    if (!part.includes('.')) return [Number.parseInt(part, 16)];
    const [a = 0, b = 0, c = 0, d = 0] = part.split('.').map(Number);
    return [(a << 8) | b, (c << 8) | d];
  });
}

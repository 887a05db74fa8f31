import type { IncomingMessage } from 'node:http';
import { isIP, isIPv4 } from 'node:net';

/** A provider gives one customer a /64 at least (RFC 6177 section 2): whoever has one address of it has them all. */
const NETWORK_GROUPS = 4;
const GROUPS = 8;
/** Characters of one entry of `X-Forwarded-For`, with the space around it. */
const MAX_ENTRY_LENGTH = 256;

/**
 * Whom a request is counted for: the client's IPv4 address, or the /64 of its IPv6 address.
 *
 * Each trusted proxy appends the address it was called from to `X-Forwarded-For`, so that with N of them the N-th entry
 * from the right was written by the outermost one, and everything to the left of it by anybody. A header that is too
 * short, or holds no address there, was not written by those proxies: the address of the socket counts.
 * @param trustedProxyHops 0 looks at no header
 */
export function clientAddress(request: IncomingMessage, trustedProxyHops: number): string {
  const own = request.socket.remoteAddress ?? '';
  if (trustedProxyHops === 0) return groupedAddress(own);
  // Node joins several headers of this name with commas, in their order.
  const forwarded = withoutPort(entryFromRight(String(request.headers['x-forwarded-for'] ?? ''), trustedProxyHops));
  return groupedAddress(isIP(forwarded) ? forwarded : own);
}

/** The N-th entry from the right, empty where there are fewer. What is to the left of it is not read. */
function entryFromRight(header: string, position: number): string {
  let end = header.length;
  for (let skipped = 1; skipped < position; skipped++) {
    // `lastIndexOf` takes a negative position as 0.
    const comma = end > 0 ? header.lastIndexOf(',', end - 1) : -1;
    if (comma < 0) return '';
    end = comma;
  }
  const start = end > 0 ? header.lastIndexOf(',', end - 1) + 1 : 0;
  return end - start > MAX_ENTRY_LENGTH ? '' : header.slice(start, end).trim();
}

/** Some proxies write the port too: `192.0.2.1:4711`, `[2001:db8::1]:4711`. */
function withoutPort(entry: string): string {
  const bracketed = /^\[([^\]]+)\](?::\d+)?$/.exec(entry);
  if (bracketed?.[1] !== undefined) return bracketed[1];
  const [address = '', port, ...rest] = entry.split(':');
  return port !== undefined && rest.length === 0 && isIPv4(address) ? address : entry;
}

/** An IPv4 address as it is, or the /64 of an IPv6 address. */
export function groupedAddress(address: string): string {
  if (isIP(address) !== 6) return address;
  const groups = groupsOf(address);
  // RFC 4291 section 2.5.5.2: an IPv4 address, as a socket that listens on both families shows it.
  const mapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff;
  if (mapped) return [6, 7].flatMap((at) => [(groups[at] ?? 0) >> 8, (groups[at] ?? 0) & 0xff]).join('.');
  const network = groups.slice(0, NETWORK_GROUPS).map((group) => group.toString(16));
  return `${network.join(':')}::/64`;
}

/** The eight groups of an address that is known to be sound. RFC 4291 section 2.2. */
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

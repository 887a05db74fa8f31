import { createHash } from 'node:crypto';
import { recordSecrets } from '../../scripts/lib/leaks.ts';
import { nodeUrl } from './nodes.ts';

export interface TicketRequest {
  /** The first gateway of the shared stack by default. */
  readonly url?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

/** Requests a ticket, like a page or a program. */
export function requestTicket({ url = nodeUrl(0), headers = {}, body }: TicketRequest): Promise<Response> {
  const json = body === undefined ? {} : { 'content-type': 'application/json' };
  return fetch(new URL('/v1/tickets', url), {
    method: 'POST',
    headers: { ...json, ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}

/** Returns a ticket for the bearer of `token`. @throws Error without a ticket */
export async function buyTicket(token: string, request: TicketRequest = {}): Promise<string> {
  const headers = { authorization: `Bearer ${token}`, ...request.headers };
  const response = await requestTicket({ ...request, headers });
  const answer = (await response.json()) as { ticket?: string };
  if (response.status !== 201 || !answer.ticket)
    throw new Error(`no ticket: ${response.status} ${JSON.stringify(answer)}`);
  recordSecrets(answer.ticket);
  return answer.ticket;
}

/** Returns the digest under which Redis stores a ticket. */
export function ticketDigest(ticket: string): string {
  return createHash('sha256').update(ticket).digest('base64url');
}

/** Response types of the Streamable HTTP transport that a client accepts. */
export interface AcceptedTypes {
  readonly json: boolean;
  readonly eventStream: boolean;
}

/**
 * Evaluates an `Accept` header by RFC 9110 section 12.5.1: without a header every type is accepted, the most specific
 * range decides, and the weight 0 excludes a type. MCP requires clients to list both types, but many HTTP clients list
 * neither, or only the type that they read.
 */
export function acceptedTypes(accept: string | null): AcceptedTypes {
  if (accept === null || accept.trim() === '') return { json: true, eventStream: true };
  const ranges = new Map(accept.toLowerCase().split(',').map(parseRange));
  const accepts = (...names: readonly string[]) => {
    const name = names.find((one) => ranges.has(one));
    return name !== undefined && ranges.get(name) === true;
  };
  return {
    json: accepts('application/json', 'application/*', '*/*'),
    eventStream: accepts('text/event-stream', 'text/*', '*/*'),
  };
}

/** Returns a media range and whether its weight is above 0. */
function parseRange(range: string): [name: string, accepted: boolean] {
  const [name = '', ...parameters] = range.split(';').map((part) => part.trim());
  const weight = parameters.find((parameter) => parameter.startsWith('q='));
  return [name, weight === undefined || Number(weight.slice('q='.length)) > 0];
}

import type { IncomingMessage } from 'node:http';

/**
 * Returns the values of a header, one per occurrence. `headersDistinct` of Node would build the lists of all headers,
 * and `headers` keeps only the first of several.
 * @param name in lower case
 */
export function headerValues({ rawHeaders }: Pick<IncomingMessage, 'rawHeaders'>, name: string): string[] {
  const values: string[] = [];
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const [written = '', value = ''] = [rawHeaders[at], rawHeaders[at + 1]];
    if (written.length === name.length && written.toLowerCase() === name) values.push(value);
  }
  return values;
}

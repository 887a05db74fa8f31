/** Separator of events: https://html.spec.whatwg.org/multipage/server-sent-events.html */
const END = '\n\n';

/**
 * Converts an SSE response with a single event to a plain JSON response. A response stays a stream only if another
 * event precedes the result; as JSON, its HTTP status can still signal a refusal.
 * @param ended called once, when the response has been read completely or its reader has cancelled
 */
export async function unwrapSingleEventStream(response: Response, ended: () => void): Promise<Response> {
  if (!response.body || !isStream(response)) {
    ended();
    return response;
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  while (!text.includes(END)) {
    const { value, done } = await reader.read();
    if (done) break;
    text += value;
  }
  const message = dataOf(text);
  if (message !== undefined && ('result' in message || 'error' in message)) {
    ended();
    return Response.json(message, { status: response.status });
  }
  return new Response(rest(text, reader, ended), { status: response.status, headers: response.headers });
}

function isStream({ headers }: Response): boolean {
  return headers.get('content-type')?.startsWith('text/event-stream') ?? false;
}

function dataOf(event: string): Readonly<Record<string, unknown>> | undefined {
  const lines = event.slice(0, event.indexOf(END)).split('\n');
  const data = lines.filter((line) => line.startsWith('data:')).map((line) => line.slice('data:'.length).trim());
  return data.length > 0 ? JSON.parse(data.join('\n')) : undefined;
}

/** Returns a stream of the text already read, followed by the rest. */
function rest(
  read: string,
  reader: ReadableStreamDefaultReader<string>,
  ended: () => void,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream<Uint8Array>({
    start: (controller) => controller.enqueue(encoder.encode(read)),
    async pull(controller) {
      const { value, done } = await reader.read();
      if (value !== undefined) controller.enqueue(encoder.encode(value));
      if (!done) return;
      controller.close();
      ended();
    },
    async cancel() {
      ended();
      await reader.cancel();
    },
  });
}

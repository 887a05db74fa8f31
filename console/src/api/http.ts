import { accessToken } from '../session/session.ts';

/** An answer of the gateway in the form of all its errors. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly status: number;
  /** Code of the gateway's error table. */
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

type Query = Readonly<Record<string, string | number | boolean | undefined>>;

interface RequestOptions {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly query?: Query;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
}

/** @throws ApiError for a refusal, TypeError if the gateway cannot be reached */
export async function request<T>(path: string, options: RequestOptions = {}): Promise<T> {
  const response = await send(path, options);
  const text = await response.text();
  return (text === '' ? undefined : JSON.parse(text)) as T;
}

/** The successful response itself, for streams and downloads. A token that was revoked meanwhile is replaced once. */
export async function send(path: string, options: RequestOptions = {}): Promise<Response> {
  const response = await attempt(path, options, await accessToken());
  if (response.ok) return response;
  const error = await errorOf(response);
  if (error.status !== 401) throw error;
  const again = await attempt(path, options, await accessToken({ fresh: true }));
  if (again.ok) return again;
  throw await errorOf(again);
}

function attempt(path: string, options: RequestOptions, token: string): Promise<Response> {
  const { method = 'GET', query = {}, body, headers = {}, signal } = options;
  const target = new URL(path, location.origin);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== '') target.searchParams.set(name, String(value));
  }
  return fetch(target, {
    method,
    headers: {
      authorization: `Bearer ${token}`,
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    cache: 'no-store',
    credentials: 'omit',
    redirect: 'error',
  });
}

async function errorOf(response: Response): Promise<ApiError> {
  try {
    const { error } = (await response.json()) as { error: { code: string; message: string } };
    return new ApiError(response.status, error.code, error.message);
  } catch {
    // The answer of a proxy.
    return new ApiError(response.status, `HTTP_${response.status}`, response.statusText || 'No further description.');
  }
}

/** A path with encoded parameters: path`/v1/users/${id}/plan`. */
export function path(texts: TemplateStringsArray, ...values: readonly string[]): string {
  return texts.reduce((sum, text, index) => sum + encodeURIComponent(values[index - 1] ?? '') + text);
}

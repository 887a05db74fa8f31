/** Result of one check. */
export interface Finding {
  /** Area, e.g. `redis`. */
  readonly area: string;
  /** What was checked, e.g. `eviction policy`. */
  readonly check: string;
  readonly status: 'ok' | 'warning' | 'failed';
  /** What was found. Never contains a secret or the value of a claim. */
  readonly detail: string;
  /** What to do; only for warnings and failures. */
  readonly advice?: string;
}

type Problem = 'warning' | 'failed';

/** Creates the findings of one area. */
export function findings(area: string) {
  return {
    ok: (check: string, detail: string): Finding => ({ area, check, status: 'ok', detail }),
    problem: (status: Problem, check: string, detail: string, advice: string): Finding => {
      return { area, check, status, detail, advice };
    },
  };
}

/** Repeats a failed operation once: a first request also pays for a cold start on a busy machine. */
export async function twice<T>(operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch {
    return operation();
  }
}

/** Text of an error with its causes: the outer message of a network error contains only that the request failed. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? '' : reasonOf(error.cause);
  const own = error instanceof AggregateError ? error.errors.map(reasonOf).join('; ') : error.message;
  return [own, cause].filter(Boolean).join(': ');
}

/**
 * Returns a function that removes secrets from a text: the values of variables that are named like secrets, the user
 * names and passwords in URLs, and further ones.
 */
export function redactor(env: Readonly<Record<string, string | undefined>>, further: readonly string[]) {
  const secrets = Object.entries(env).flatMap(([name, value = '']) => {
    if (/SECRET|KEY|PASSWORD|TOKEN/.test(name) && !/FILE|PREFIX|URL|_SECONDS$/.test(name)) return [value];
    const url = URL.parse(value);
    return url ? [url.password, decodeURIComponent(url.password)] : [];
  });
  // Short values would remove parts of ordinary words.
  const removed = [...secrets, ...further].filter((secret) => secret.length >= 4).sort((a, b) => b.length - a.length);
  return (text: string) => removed.reduce((rest, secret) => rest.replaceAll(secret, '***'), text);
}

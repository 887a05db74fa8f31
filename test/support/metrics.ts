/**
 * Returns the values of a metric by its labels as written (`endpoint="/ws",plan="pro"`), from `GET /metrics` of a
 * process.
 */
export async function scrape(url: string, metric: string): Promise<ReadonlyMap<string, number>> {
  const response = await fetch(new URL('/metrics', url));
  if (!response.ok) throw new Error(`GET /metrics answered ${response.status}`);
  const values = new Map<string, number>();
  for (const line of (await response.text()).split('\n')) {
    const [, name, labels = '', value] = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (name === metric) values.set(labels, Number(value));
  }
  return values;
}

/** Returns the sum over all labels; 0 if there is no sample yet. */
export async function total(url: string, metric: string): Promise<number> {
  return [...(await scrape(url, metric)).values()].reduce((sum, value) => sum + value, 0);
}

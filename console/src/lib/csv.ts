/** Formulas that a spreadsheet would execute begin with one of these: OWASP, CSV injection. */
const FORMULA_STARTS = new Set(['=', '+', '-', '@', '\t', '\r']);

/** RFC 4180. Text that a spreadsheet would take for a formula gets a leading apostrophe; numbers do not. */
export function csv(header: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  return [header, ...rows].map((row) => row.map(cell).join(',')).join('\r\n');
}

function cell(value: string | number): string {
  if (typeof value === 'number') return String(value);
  const safe = FORMULA_STARTS.has(value.charAt(0)) ? `'${value}` : value;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** A line of a plot. Points whose y is NaN are gaps. */
export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

export interface ChartOptions {
  readonly title: string;
  readonly series: readonly Series[];
  /** Positions and labels of the ticks on the x axis. */
  readonly xTicks: readonly (readonly [x: number, label: string])[];
  readonly unit: string;
}

const WIDTH = 640;
const HEIGHT = 240;
const MARGIN = { left: 56, right: 12, top: 12, bottom: 26 } as const;
const PLOT = { width: WIDTH - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom } as const;
/** Distinguishable with all common forms of colour blindness: Okabe and Ito, "Color Universal Design", 2008. */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7'];
const Y_LINES = 4;

/** Returns a figure with an inline SVG: no script, no font, no external resource. */
export function chart({ title, series, xTicks, unit }: ChartOptions): string {
  const points = series.flatMap((line) => line.points).filter(([, y]) => Number.isFinite(y));
  const xs = [...points.map(([x]) => x), ...xTicks.map(([x]) => x)];
  const [left, right] = [Math.min(...xs, 0), Math.max(...xs, 1)];
  const step = niceStep(points.reduce((top, [, y]) => Math.max(top, y), 0) / Y_LINES);
  const toX = (x: number) => MARGIN.left + ((x - left) / (right - left)) * PLOT.width;
  const toY = (y: number) => MARGIN.top + PLOT.height * (1 - y / (step * Y_LINES));
  const rows = Array.from({ length: Y_LINES + 1 }, (_, at) => {
    const y = toY(at * step).toFixed(1);
    return `<path class="grid" d="M${MARGIN.left} ${y}h${PLOT.width}"/>${label(MARGIN.left - 6, Number(y) + 4, 'end', String(round(at * step)))}`;
  });
  const columns = xTicks.map(([x, text]) => label(toX(x), HEIGHT - 8, 'middle', text));
  const lines = series.map((line, at) => {
    return `<path class="line" stroke="${colour(at)}" d="${pathOf(line.points, toX, toY)}"/>`;
  });
  const legend = series.map((line, at) => `<span style="--of:${colour(at)}">${escapeHtml(line.name)}</span>`);
  return [
    `<figure><figcaption><b>${escapeHtml(title)}</b> ${escapeHtml(unit)} ${legend.join(' ')}</figcaption>`,
    `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(title)}">`,
    ...rows,
    ...columns,
    ...lines,
    '</svg></figure>',
  ].join('\n');
}

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** Returns about six ticks of a time axis, at round numbers of seconds. */
export function timeTicks(seconds: number): (readonly [number, string])[] {
  const step = niceStep(Math.max(seconds, 1) / 6);
  return Array.from(
    { length: Math.floor(seconds / step) + 1 },
    (_, at) => [at * step, `${round(at * step)} s`] as const,
  );
}

function pathOf(points: Series['points'], toX: (x: number) => number, toY: (y: number) => number): string {
  let isDrawing = false;
  const commands = points.map(([x, y]) => {
    if (!Number.isFinite(y)) {
      isDrawing = false;
      return '';
    }
    const command = `${isDrawing ? 'L' : 'M'}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`;
    isDrawing = true;
    return command;
  });
  return commands.join('');
}

/** Returns the smallest 1, 2 or 5 times a power of ten that is at least `value`. */
function niceStep(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-3)));
  const factor = [1, 2, 5].find((candidate) => candidate * power >= value) ?? 10;
  return factor * power;
}

function round(value: number): number {
  return Number(value.toPrecision(6));
}

function colour(at: number): string {
  return COLOURS[at % COLOURS.length] ?? 'currentColor';
}

function label(x: number, y: number, anchor: 'middle' | 'end', text: string): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}">${escapeHtml(text)}</text>`;
}

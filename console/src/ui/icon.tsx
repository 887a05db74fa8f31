/** Paths of the icons, drawn for this console on a grid of 16. */
const PATHS = {
  playground: 'M3 3.5h10v7H7.5L4.5 13v-2.500H3z',
  overview: 'M2.5 9.500h2.500l2-5.500 2.500 8 1.700-4h2.300',
  nodes: 'M3 3h10v4H3zM3 9h10v4H3zM5.500 5h.01M5.500 11h.01',
  users:
    'M8 8a2.500 2.500 0 1 0 0-5 2.500 2.500 0 0 0 0 5M3.500 13.500c.4-2.400 2.200-3.500 4.500-3.500s4.100 1.100 4.500 3.500',
  runs: 'M4.500 3v10l8-5z',
  queues: 'M3 4h10M3 8h10M3 12h6',
  usage: 'M3 13V9M6.500 13V4M10 13V7M13.500 13H2.500',
  catalogue: 'M3 3h4v4H3zM9 3h4v4H9zM3 9h4v4H3zM9 9h4v4H9z',
  settings: 'M2.500 5h6M11.500 5h2M2.500 11h2M7.500 11h6M10 3.500v3M6 9.500v3',
  audit: 'M4 2.500h6l2.500 2.500v8.500H4zM6.500 7h4M6.500 10h4',
  menu: 'M3 4.500h10M3 8h10M3 11.500h10',
  theme: 'M8 2.500a5.500 5.500 0 1 0 0 11zM8 2.500a5.500 5.500 0 0 1 0 11',
  out: 'M6 3H3v10h3M10 5l3 3-3 3M13 8H6.500',
  close: 'M4 4l8 8M12 4l-8 8',
  external: 'M9.500 3H13v3.500M13 3 7.500 8.500M11 9.500V13H3V5h3.500',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { readonly name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The mark of Tollgate: a barrier. */
export function Mark() {
  return (
    <svg viewBox="0 0 32 32" aria-hidden="true" class="mark">
      <rect width="32" height="32" rx="7" fill="#0c5f66" />
      <path d="M9 7v18M9 12h16M25 12v5" fill="none" stroke="#fff" stroke-width="3.2" stroke-linecap="round" />
      <path d="M14 12h3M20 12h2" stroke="#f2b134" stroke-width="3.2" />
    </svg>
  );
}

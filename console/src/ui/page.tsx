import type { ComponentChildren } from 'preact';
import { useEffect } from 'preact/hooks';

interface PageProps {
  readonly title: string;
  /** What the page is for, in one sentence. */
  readonly about?: ComponentChildren;
  readonly actions?: ComponentChildren;
  /** Link to the page above this one. */
  readonly parent?: { readonly title: string; readonly href: string };
  readonly children: ComponentChildren;
}

export function Page({ title, about, actions, parent, children }: PageProps) {
  useEffect(() => {
    document.title = `${title} · Tollgate`;
  }, [title]);
  return (
    <div class="page">
      <header class="page-head">
        <div>
          {parent && (
            <a class="breadcrumb" href={parent.href}>
              ← {parent.title}
            </a>
          )}
          <h1>
            <bdi>{title}</bdi>
          </h1>
          {about && <p>{about}</p>}
        </div>
        {actions && <div class="row">{actions}</div>}
      </header>
      {children}
    </div>
  );
}

interface PanelProps {
  readonly title: ComponentChildren;
  readonly actions?: ComponentChildren;
  /** Whether the content reaches the edges, as tables do. */
  readonly flush?: boolean;
  readonly children: ComponentChildren;
}

export function Panel({ title, actions, flush = false, children }: PanelProps) {
  return (
    <section class="panel">
      <div class="panel-head">
        <h2>{title}</h2>
        {actions && <div class="row">{actions}</div>}
      </div>
      {flush ? children : <div class="panel-body">{children}</div>}
    </section>
  );
}

/** Names and values. */
export function Facts({ rows }: { readonly rows: readonly (readonly [string, ComponentChildren])[] }) {
  return (
    <dl class="facts">
      {rows.map(([name, value]) => (
        <>
          <dt key={name}>{name}</dt>
          <dd>{value}</dd>
        </>
      ))}
    </dl>
  );
}

interface TileProps {
  readonly label: string;
  readonly value: ComponentChildren;
  readonly unit?: string;
  readonly note?: ComponentChildren;
  readonly tone?: 'warn' | 'bad' | undefined;
}

export function Tile({ label, value, unit, note, tone }: TileProps) {
  return (
    <div class="tile" data-tone={tone}>
      <dt>{label}</dt>
      <dd>
        {value}
        {unit && <small> {unit}</small>}
      </dd>
      {note && <dd class="tile-note">{note}</dd>}
    </div>
  );
}

export interface TabLink {
  readonly id: string;
  readonly title: string;
  readonly href: string;
}

/** Views of one page, each with its own address. */
export function Tabs({ label, tabs, current }: { label: string; tabs: readonly TabLink[]; current: string }) {
  return (
    <nav class="tabs" aria-label={label}>
      {tabs.map(({ id, title, href }) => (
        <a key={id} href={href} aria-current={id === current ? 'page' : undefined}>
          {title}
        </a>
      ))}
    </nav>
  );
}

interface SegmentsProps<T extends string> {
  readonly label: string;
  readonly options: readonly { readonly value: T; readonly title: string }[];
  readonly value: T;
  readonly onChange: (value: T) => void;
}

/** A choice of few options, all visible. */
export function Segments<T extends string>({ label, options, value, onChange }: SegmentsProps<T>) {
  return (
    <fieldset class="segments" aria-label={label}>
      {options.map((option) => (
        <button
          key={option.value}
          type="button"
          aria-pressed={option.value === value}
          onClick={() => onChange(option.value)}
        >
          {option.title}
        </button>
      ))}
    </fieldset>
  );
}

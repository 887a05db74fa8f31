import type { ComponentChildren } from 'preact';
import { Empty } from './state.tsx';

export interface Column<Row> {
  readonly title: string;
  readonly cell: (row: Row) => ComponentChildren;
  readonly kind?: 'number' | 'actions' | 'nowrap';
}

interface TableProps<Row> {
  /** What the table lists, for screen readers. */
  readonly caption: string;
  readonly columns: readonly Column<Row>[];
  readonly rows: readonly Row[];
  readonly keyOf: (row: Row) => string;
  /** Shown instead of the table if there are no rows. */
  readonly empty: string;
  readonly emptyHint?: ComponentChildren;
}

/** A table with more columns cuts ids off. */
const DENSE_FROM = 6;

/** A table; on a phone each row becomes a card. The first column names the row. */
export function Table<Row>({ caption, columns, rows, keyOf, empty, emptyHint }: TableProps<Row>) {
  if (rows.length === 0) return <Empty title={empty}>{emptyHint}</Empty>;
  return (
    <div class="table-scroll">
      <table class="table" data-cards data-dense={columns.length > DENSE_FROM || undefined}>
        <caption class="visually-hidden">{caption}</caption>
        <thead>
          <tr>
            {columns.map(({ title, kind }) => (
              <th key={title} scope="col" class={kind}>
                {kind === 'actions' ? <span class="visually-hidden">{title}</span> : title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={keyOf(row)}>
              {columns.map(({ title, cell, kind }, index) =>
                index === 0 ? (
                  <th key={title} scope="row" data-label={title}>
                    <div>{cell(row)}</div>
                  </th>
                ) : (
                  <td key={title} class={kind} data-label={kind === 'actions' ? '' : title}>
                    <div>{cell(row)}</div>
                  </td>
                ),
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

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

/**
 * On a phone the parts of a table are blocks, which are no table for some screen readers unless they say so. The linter
 * takes the roles for redundant where it sees them on the elements.
 */
const ROLES = {
  table: { role: 'table' },
  group: { role: 'rowgroup' },
  row: { role: 'row' },
  columnHeader: { role: 'columnheader' },
  rowHeader: { role: 'rowheader' },
  cell: { role: 'cell' },
} as const;

/** A table; on a phone each row becomes a card. The first column names the row. */
export function Table<Row>({ caption, columns, rows, keyOf, empty, emptyHint }: TableProps<Row>) {
  if (rows.length === 0) return <Empty title={empty}>{emptyHint}</Empty>;
  return (
    <div class="table-scroll">
      <table {...ROLES.table} class="table" data-cards data-dense={columns.length > DENSE_FROM || undefined}>
        <caption class="visually-hidden">{caption}</caption>
        <thead {...ROLES.group}>
          <tr {...ROLES.row}>
            {columns.map(({ title, kind }) => (
              <th key={title} {...ROLES.columnHeader} scope="col" class={kind}>
                {kind === 'actions' ? <span class="visually-hidden">{title}</span> : title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody {...ROLES.group}>
          {rows.map((row) => (
            <tr key={keyOf(row)} {...ROLES.row}>
              {columns.map(({ title, cell, kind }, index) =>
                index === 0 ? (
                  <th key={title} {...ROLES.rowHeader} scope="row" data-label={title}>
                    <div>{cell(row)}</div>
                  </th>
                ) : (
                  <td key={title} {...ROLES.cell} class={kind} data-label={kind === 'actions' ? '' : title}>
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

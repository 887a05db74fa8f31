import { href, type PageProps } from '../../lib/router.ts';
import { Page, Tabs } from '../../ui/page.tsx';
import { Bill } from './bill.tsx';
import { Consumers } from './consumers.tsx';
import { Records } from './records.tsx';
import { Windows } from './windows.tsx';

const TABS = [
  { id: 'bill', title: 'Bill' },
  { id: 'records', title: 'Records' },
  { id: 'windows', title: 'Windows and verification' },
  { id: 'consumers', title: 'Consumers' },
] as const;

export function Usage({ route }: PageProps) {
  const [tab = 'bill'] = route.rest;
  const query = (name: string) => route.query.get(name) ?? '';
  // The tabs with a filter by user keep it.
  const userOf = (id: string) => (id === 'bill' || id === 'records' ? query('user') : '');
  const tabs = TABS.map((one) => ({ ...one, href: href(['usage', one.id], { user: userOf(one.id) }) }));
  return (
    <Page title="Usage and bill" about="What was charged, to whom, and the proof that no record is missing or changed.">
      <Tabs label="Views" tabs={tabs} current={tab} />
      {tab === 'records' && (
        <Records
          user={query('user')}
          tool={query('tool')}
          from={query('from')}
          to={query('to')}
          order={query('order') === 'asc' ? 'asc' : 'desc'}
          record={query('record')}
        />
      )}
      {tab === 'windows' && <Windows />}
      {tab === 'consumers' && <Consumers />}
      {tab === 'bill' && <Bill groups={query('by') || 'tool'} days={Number(query('days')) || 7} user={query('user')} />}
    </Page>
  );
}

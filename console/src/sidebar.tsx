import { useEffect, useState } from 'preact/hooks';
import { href, route } from './lib/router.ts';
import { nextTheme, theme } from './lib/theme.ts';
import { useConfig } from './session/config.ts';
import { canRead, canWrite, session, signOut } from './session/session.ts';
import { Icon, type IconName, Mark } from './ui/icon.tsx';

interface Entry {
  readonly page: IconName;
  readonly title: string;
}

const GROUPS: readonly { readonly title: string; readonly entries: readonly Entry[] }[] = [
  {
    title: 'Operate',
    entries: [
      { page: 'overview', title: 'Overview' },
      { page: 'nodes', title: 'Nodes' },
      { page: 'users', title: 'Users' },
      { page: 'runs', title: 'Runs' },
      { page: 'queues', title: 'Queues' },
    ],
  },
  {
    title: 'Account for',
    entries: [
      { page: 'usage', title: 'Usage and bill' },
      { page: 'audit', title: 'Audit' },
    ],
  },
  {
    title: 'Configure',
    entries: [
      { page: 'catalogue', title: 'Catalogue' },
      { page: 'settings', title: 'Settings' },
    ],
  },
];
const TRY: Entry = { page: 'playground', title: 'Playground' };

export function Sidebar() {
  const { environment } = useConfig();
  const [open, setOpen] = useState(false);
  const { page } = route.value;
  // The menu of a phone closes when another page opens.
  useEffect(() => setOpen(false), [page]);
  const current = page === '' ? (canRead.value ? 'overview' : 'playground') : page;
  const link = ({ page, title }: Entry) => (
    <li key={page}>
      <a href={href(page)} aria-current={page === current ? 'page' : undefined} onClick={() => setOpen(false)}>
        <Icon name={page} />
        {title}
      </a>
    </li>
  );
  return (
    <header class="sidebar" data-open={open || undefined}>
      <div class="sidebar-top">
        <a class="brand" href="#/">
          <Mark />
          Tollgate
          <span class="environment">{environment}</span>
        </a>
        <button type="button" class="button menu-button" aria-expanded={open} onClick={() => setOpen(!open)}>
          <Icon name="menu" />
          Menu
        </button>
      </div>
      <nav class="nav" aria-label="Pages">
        {canRead.value &&
          GROUPS.map(({ title, entries }) => (
            <div key={title}>
              <div class="nav-group">{title}</div>
              <ul>{entries.map(link)}</ul>
            </div>
          ))}
        <div class="nav-group">Try</div>
        <ul>{link(TRY)}</ul>
      </nav>
      <Account />
    </header>
  );
}

function Account() {
  const current = session.value;
  if (current.status !== 'signed_in') return null;
  const { user } = current;
  const role = canWrite.value
    ? 'Administrator'
    : canRead.value
      ? 'Viewer, read only'
      : `Plan ${user.plan ?? 'unknown'}`;
  return (
    <div class="account">
      <div>
        <div class="account-name" title={user.id}>
          <bdi>{user.name}</bdi>
        </div>
        <div class="muted">{role}</div>
      </div>
      <div class="row spread">
        <button type="button" class="button" data-kind="quiet" data-size="small" onClick={nextTheme}>
          <Icon name="theme" />
          <span class="visually-hidden">Theme: </span>
          {theme.value}
        </button>
        <button type="button" class="button" data-kind="quiet" data-size="small" onClick={() => void signOut()}>
          <Icon name="out" />
          Sign out
        </button>
      </div>
    </div>
  );
}

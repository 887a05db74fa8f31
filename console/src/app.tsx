import type { ComponentType } from 'preact';
import { useEffect, useRef } from 'preact/hooks';
import { lazy } from './lib/lazy.tsx';
import { type PageProps, route } from './lib/router.ts';
import { ConfigContext, type ConsoleConfig } from './session/config.ts';
import { canRead, session } from './session/session.ts';
import { SignIn } from './session/sign-in.tsx';
import { Sidebar } from './sidebar.tsx';
import { Page } from './ui/page.tsx';
import { Empty } from './ui/state.tsx';
import { Toasts } from './ui/toasts.tsx';

const Playground = lazy(async () => (await import('./pages/playground/playground.tsx')).Playground);

/** The pages of operators. Each is its own file, fetched when it is first opened. */
const ADMIN_PAGES: Readonly<Record<string, ComponentType<PageProps>>> = {
  overview: lazy(async () => (await import('./pages/overview/overview.tsx')).Overview),
  nodes: lazy(async () => (await import('./pages/nodes.tsx')).Nodes),
  users: lazy(async () => (await import('./pages/users/users.tsx')).Users),
  runs: lazy(async () => (await import('./pages/runs/runs.tsx')).Runs),
  queues: lazy(async () => (await import('./pages/queues.tsx')).Queues),
  usage: lazy(async () => (await import('./pages/usage/usage.tsx')).Usage),
  catalogue: lazy(async () => (await import('./pages/catalogue/catalogue.tsx')).Catalogue),
  settings: lazy(async () => (await import('./pages/settings.tsx')).Settings),
  audit: lazy(async () => (await import('./pages/audit.tsx')).Audit),
  runbook: lazy(async () => (await import('./pages/runbook.tsx')).Runbook),
};

export function App({ config }: { readonly config: ConsoleConfig }) {
  if (session.value.status !== 'signed_in') return <SignIn config={config} />;
  return (
    <ConfigContext.Provider value={config}>
      <Shell />
    </ConfigContext.Provider>
  );
}

function Shell() {
  const main = useRef<HTMLElement>(null);
  const current = route.value;
  const id = [current.page, ...current.rest].join('/');
  const shown = useRef(id);
  // A screen reader continues at the new page, as after a page load.
  useEffect(() => {
    if (shown.current === id) return;
    shown.current = id;
    scrollTo(0, 0);
    main.current?.focus({ preventScroll: true });
  }, [id]);
  return (
    <>
      <button type="button" class="skip" onClick={() => main.current?.focus()}>
        Skip to the content
      </button>
      <div class="shell">
        <Sidebar />
        <main class="main" ref={main} tabIndex={-1}>
          <CurrentPage route={current} />
        </main>
      </div>
      <Toasts />
    </>
  );
}

function CurrentPage({ route: { page, rest, query } }: PageProps) {
  const start = canRead.value ? 'overview' : 'playground';
  const name = page === '' ? start : page;
  if (name === 'playground') return <Playground />;
  const Found = Object.hasOwn(ADMIN_PAGES, name) ? ADMIN_PAGES[name] : undefined;
  if (!Found) {
    return (
      <Page title="Page not found">
        <Empty title="There is no such page">Choose one from the navigation.</Empty>
      </Page>
    );
  }
  if (!canRead.value) {
    return (
      <Page title="For operators">
        <Empty title="Your account may not see this page">
          It needs the scope <code>admin:read</code> or <code>admin</code>. Sign in with another account, or use the
          playground.
        </Empty>
      </Page>
    );
  }
  return <Found route={{ page: name, rest, query }} />;
}

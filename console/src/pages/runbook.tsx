import source from '../../../docs/runbook.md?raw';
import { href, type PageProps } from '../lib/router.ts';
import { Page, Panel } from '../ui/page.tsx';

interface Section {
  readonly title: string;
  readonly paragraphs: readonly string[];
}

/** One section per alert, from docs/runbook.md as of this build: it is there when the network is not. */
const SECTIONS: readonly Section[] = source
  .split(/^## /m)
  .slice(1)
  .map((text) => {
    const [title = '', ...rest] = text.split('\n');
    const paragraphs = rest
      .join('\n')
      .split('\n\n')
      .map((paragraph) => paragraph.trim().replaceAll('\n', ' '));
    return { title, paragraphs: paragraphs.filter(Boolean) };
  });

export function Runbook({ route }: PageProps) {
  const wanted = route.rest[0]?.toLowerCase();
  const shown = SECTIONS.filter(({ title }) => wanted === undefined || title.toLowerCase() === wanted);
  return (
    <Page
      title="Runbook"
      about="What an alert means, what to look at and what to do."
      parent={{ title: 'Overview', href: href('overview') }}
      actions={wanted !== undefined && <a href={href('runbook')}>All sections</a>}
    >
      {(shown.length > 0 ? shown : SECTIONS).map(({ title, paragraphs }) => (
        <Panel key={title} title={title}>
          <div class="stack prose">
            {paragraphs.map((text) => (
              <p key={text}>
                <Marked text={text} />
              </p>
            ))}
          </div>
        </Panel>
      ))}
    </Page>
  );
}

/** Code spans, and links by their text: the documents that they name are not part of the console. */
function Marked({ text }: { readonly text: string }) {
  const parts = text.replace(/\[([^[\]]*)\]\([^()[]*\)/g, '$1').split('`');
  return <>{parts.map((part, index) => (index % 2 === 1 ? <code key={part}>{part}</code> : part))}</>;
}

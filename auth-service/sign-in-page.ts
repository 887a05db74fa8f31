import type { FastifyReply } from 'fastify';

export const STYLE_PATH = '/oauth/sign-in.css';

/** Markup that is safe to insert into a page. */
interface Markup {
  readonly markup: string;
}

const ESCAPES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Joins markup and values. Values are escaped, so that text of a request can never become markup. */
function html(strings: TemplateStringsArray, ...values: readonly (string | Markup | readonly Markup[])[]): Markup {
  const texts = values.map((value) => {
    if (typeof value === 'string') return value.replaceAll(/[&<>"']/g, (character) => ESCAPES[character] ?? '');
    return [value]
      .flat()
      .map(({ markup }) => markup)
      .join('');
  });
  return { markup: strings.map((string, index) => string + (texts[index] ?? '')).join('') };
}

export interface SignInPage {
  /** Parameters of the authorization request, which the form sends again. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly email: string;
  /** Message above the form; undefined at the first display. */
  readonly problem?: string | undefined;
  readonly demoAccounts: readonly string[];
  /** Origin to which the browser returns; the only one besides this service that the form may lead to. */
  readonly returnsTo: string;
}

export function sendSignIn(reply: FastifyReply, page: SignInPage, status = 200): FastifyReply {
  const { parameters, email, problem, demoAccounts, returnsTo } = page;
  const hidden = Object.entries(parameters).map(([name, value]) => {
    return html`<input type="hidden" name="${name}" value="${value}">`;
  });
  const options = demoAccounts.map((account) => html`<option value="${account}"></option>`);
  const body = html`<h1>Sign in to Tollgate</h1>
${problem === undefined ? html`` : html`<p class="problem" role="alert">${problem}</p>`}
<form method="post" action="authorize">
${hidden}
<label for="email">E-mail</label>
<input id="email" name="email" type="email" value="${email}" list="accounts" autocomplete="username" required autofocus>
<datalist id="accounts">${options}</datalist>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button type="submit">Sign in</button>
</form>
<p class="note">Accounts of this development service: ${demoAccounts.join(', ')}. <code>npm start</code> prints their password.</p>`;
  return sendPage(reply, { title: 'Sign in · Tollgate', body, formAction: `'self' ${returnsTo}` }, status);
}

/** Sends a page with a heading and a text. */
export function sendMessage(reply: FastifyReply, heading: string, text: string, status: number): FastifyReply {
  const body = html`<h1>${heading}</h1><p>${text}</p>`;
  return sendPage(reply, { title: `${heading} · Tollgate`, body, formAction: "'none'" }, status);
}

function sendPage(
  reply: FastifyReply,
  { title, body, formAction }: { readonly title: string; readonly body: Markup; readonly formAction: string },
  status: number,
): FastifyReply {
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${title}</title>
<link rel="stylesheet" href="${STYLE_PATH.slice(STYLE_PATH.lastIndexOf('/') + 1)}">
</head>
<body><main>${body}</main></body>
</html>
`;
  // Browsers apply `form-action` to redirects after the form too.
  const policy = `default-src 'none'; style-src 'self'; form-action ${formAction}; base-uri 'none'; frame-ancestors 'none'`;
  return reply
    .status(status)
    .header('content-type', 'text/html; charset=utf-8')
    .header('content-security-policy', policy)
    .header('x-content-type-options', 'nosniff')
    .header('x-frame-options', 'DENY')
    .header('referrer-policy', 'no-referrer')
    .send(page.markup);
}

export const STYLE = `:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0; display: grid; min-height: 100vh; place-items: center; background: Canvas; color: CanvasText; }
main { box-sizing: border-box; width: min(100%, 24rem); padding: 1.5rem; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; }
form { display: grid; gap: 0.5rem; }
input, button { font: inherit; padding: 0.6rem 0.75rem; border: 1px solid GrayText; border-radius: 0.4rem; }
input:focus-visible, button:focus-visible { outline: 3px solid Highlight; outline-offset: 1px; }
button { margin-top: 0.75rem; border: 0; background: #1f4fd8; color: #fff; cursor: pointer; }
.problem { padding: 0.6rem 0.75rem; border-left: 4px solid #c62828; background: color-mix(in srgb, #c62828 12%, Canvas); }
.note { font-size: 0.85rem; opacity: 0.85; overflow-wrap: anywhere; }
`;

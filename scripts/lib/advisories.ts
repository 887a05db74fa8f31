import { z } from 'zod';

/** Severities that fail the check for a production dependency. */
const FAILING = new Set(['high', 'critical']);
/** Maximum lifetime of an exception, after which it needs a review. */
const MAX_EXCEPTION_DAYS = 90;
const DAY_MS = 86_400_000;

const Advisory = z.object({ name: z.string(), title: z.string(), url: z.string(), severity: z.string() });

/** The used part of `npm audit --json`; `via` contains package names or advisories. */
const Report = z.object({
  auditReportVersion: z.literal(2),
  vulnerabilities: z.record(
    z.string(),
    z.object({ via: z.array(z.union([z.string(), Advisory])), nodes: z.array(z.string()) }),
  ),
});

/** npm's output if the registry refuses the request, is unreachable or answers too late. */
const Unanswered = z.object({ message: z.string(), error: z.object({ code: z.never().optional() }).optional() });

const AllowList = z.array(
  z.strictObject({
    advisory: z.string().regex(/^GHSA(-[23456789cfghjmpqrvwx]{4}){3}$/, 'is no GitHub advisory id'),
    package: z.string().min(1),
    reason: z.string().min(20, 'has to say why the advisory does not affect this project'),
    expires: z.iso.date(),
  }),
);

const Lock = z.object({ packages: z.record(z.string(), z.object({ dev: z.boolean().optional() })) });

export type Exceptions = z.infer<typeof AllowList>;

export interface Finding {
  /** The last part of the advisory's URL, `GHSA-…`. */
  readonly advisory: string;
  readonly package: string;
  readonly severity: string;
  readonly title: string;
  readonly url: string;
  /** Whether an installed copy of the package belongs to a production dependency. */
  readonly production: boolean;
}

/** `unanswered`: the registry provides no advisories, which says nothing about the dependencies. */
export type Audit =
  | { readonly kind: 'answered'; readonly findings: readonly Finding[] }
  | { readonly kind: 'unanswered'; readonly message: string };

/**
 * @param stdout of `npm audit --json`
 * @param lock the text of package-lock.json
 * @throws Error if npm failed for a reason other than the registry, or its report has another form
 */
export function parseAudit(stdout: string, lock: string): Audit {
  const json: unknown = JSON.parse(stdout);
  const unanswered = Unanswered.safeParse(json);
  if (unanswered.success) return { kind: 'unanswered', message: unanswered.data.message };
  const report = Report.safeParse(json);
  if (!report.success) throw new Error(`npm audit did not print a report: ${stdout.slice(0, 500)}`);
  const { packages } = Lock.parse(JSON.parse(lock));
  const findings = Object.values(report.data.vulnerabilities).flatMap(({ via, nodes }) => {
    const production = nodes.some((node) => packages[node]?.dev !== true);
    const advisories = via.filter((one) => typeof one !== 'string');
    return advisories.map(({ name, title, url, severity }) => {
      return { advisory: url.split('/').at(-1) ?? url, package: name, severity, title, url, production };
    });
  });
  return { kind: 'answered', findings };
}

/** @throws Error with every problem: a malformed, duplicate or expired entry, or one with a too long lifetime */
export function parseExceptions(text: string, now: Date): Exceptions {
  const parsed = AllowList.safeParse(JSON.parse(text));
  if (!parsed.success) throw new Error(z.prettifyError(parsed.error));
  const seen = new Set<string>();
  const problems = parsed.data.flatMap(({ advisory, package: name, expires }) => {
    const id = `${advisory} ${name}`;
    const duplicate = seen.has(id);
    seen.add(id);
    // The exception includes the named day.
    const remainingMs = Date.parse(expires) + DAY_MS - now.getTime();
    if (duplicate) return [`${id} is listed twice`];
    if (remainingMs <= 0) return [`${id} expired on ${expires}: upgrade, or review the reason and set a new date`];
    if (remainingMs > (MAX_EXCEPTION_DAYS + 1) * DAY_MS) return [`${id} lasts longer than ${MAX_EXCEPTION_DAYS} days`];
    return [];
  });
  if (problems.length > 0) throw new Error(problems.join('\n'));
  return parsed.data;
}

export interface Verdict {
  readonly ok: boolean;
  readonly lines: readonly string[];
}

/** Fails for high and critical advisories of production dependencies without an exception, and reports the others. */
export function judge(audit: Audit, exceptions: Exceptions): Verdict {
  if (audit.kind === 'unanswered') {
    return { ok: true, lines: [`NOT CHECKED: the registry did not answer with advisories: ${audit.message}`] };
  }
  const allows = (finding: Finding) =>
    exceptions.some(({ advisory, package: name }) => advisory === finding.advisory && name === finding.package);
  const states = audit.findings.map((finding) => {
    if (!finding.production || !FAILING.has(finding.severity)) return { finding, state: 'noted' };
    return { finding, state: allows(finding) ? 'allowed' : 'FAILS' };
  });
  const unused = exceptions.filter(({ advisory, package: name }) => {
    return !audit.findings.some((finding) => finding.advisory === advisory && finding.package === name);
  });
  const failing = states.filter(({ state }) => state === 'FAILS').length;
  return {
    ok: failing === 0,
    lines: [
      ...states.map(({ finding, state }) => `${state}: ${describe(finding)}`),
      ...unused.map(({ advisory, package: name }) => `unused exception: ${advisory} of ${name} can be removed`),
      `${audit.findings.length} known advisories, ${failing} of which fail the check.`,
    ],
  };
}

function describe({ package: name, severity, title, url, production }: Finding): string {
  const kind = production ? 'production' : 'development';
  return `${severity} advisory of the ${kind} dependency ${name}: ${title} (${url})`;
}

import { UserError } from './user-error.ts';

/** The projects of jest.config.mjs. */
export const TEST_PROJECTS = ['unit', 'integration', 'faults', 'cluster', 'e2e'] as const;

function isProject(name: string): boolean {
  return TEST_PROJECTS.some((project) => project === name);
}

/**
 * Replaces `--project <name>` (or `--project=<name>`, any number of times) by jest's `--selectProjects` and passes all
 * other arguments on. `--selectProjects` takes every word up to the next option, so the projects come first and an
 * option that changes nothing ends them.
 * @throws UserError if a project does not exist
 */
export function jestArguments(args: readonly string[]): string[] {
  const projects: string[] = [];
  const others: string[] = [];
  const queue = args.flatMap((arg) => (arg.startsWith('--project=') ? ['--project', arg.slice(10)] : [arg]));
  for (let arg = queue.shift(); arg !== undefined; arg = queue.shift()) {
    if (arg === '--project') projects.push(queue.shift() ?? '');
    else others.push(arg);
  }
  const unknown = projects.find((name) => !isProject(name));
  if (unknown !== undefined)
    throw new UserError(`No test project "${unknown}". Choose one of ${TEST_PROJECTS.join(', ')}.`);
  return projects.length === 0 ? others : ['--selectProjects', ...projects, '--config=jest.config.mjs', ...others];
}

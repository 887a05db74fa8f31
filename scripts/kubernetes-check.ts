import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Command } from 'commander';
import { type Deployment, DeploymentCheck, type Load } from './lib/deployment-check.ts';
import { Kubectl } from './lib/kubectl.ts';
import { PROJECT_ROOT } from './lib/processes.ts';
import { Steps } from './lib/steps.ts';
import { runScript, UserError } from './lib/user-error.ts';

const OVERLAY = join(PROJECT_ROOT, 'k8s/overlays/dev');
const SECRETS = join(OVERLAY, 'secrets.env');
const NAMESPACE = 'tollgate-dev';
const ISSUER = 'http://tollgate-auth:8081';
/** Longer than a rolling restart of the gateways of the overlay. */
const LOAD: Load = { users: 30, iterationsPerSecond: 20, seconds: 240 };
const TOKENS_TIMEOUT_MS = 60_000;

interface Flags {
  readonly url: string;
  readonly drain: boolean;
  readonly image?: string;
  readonly keep: boolean;
}

/**
 * `npm run test:kubernetes`: installs the overlay dev into the cluster that KUBECONFIG names, uses it through the ingress,
 * restarts and deletes its parts under load, and removes it.
 */
function parse(): Flags {
  return new Command('npm run test:kubernetes --')
    .option('--url <url>', 'address of the ingress', 'http://tollgate.localhost')
    .option('--drain', 'also drain one of at least two Kubernetes nodes', false)
    .option('--image <name>', 'also upgrade to this image, which the nodes must have or be able to pull')
    .option('--keep', 'leave the deployment in the cluster', false)
    .parse()
    .opts<Flags>();
}

function readSecrets(): Deployment['secrets'] {
  const lines = readFileSync(SECRETS, 'utf8').split('\n');
  const value = (name: string) => lines.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1) ?? '';
  return { jwt: value('JWT_SECRET_KEY'), service: value('SERVICE_SECRET'), demoPassword: value('DEMO_PASSWORD') };
}

/** @throws UserError if the second apply reports any change */
async function applyTwice(kubectl: Kubectl): Promise<void> {
  await kubectl.run('apply', '--kustomize', OVERLAY);
  await kubectl.rolledOut();
  const again = await kubectl.run('apply', '--kustomize', OVERLAY);
  const changed = again.split('\n').filter((line) => line && !line.endsWith(' unchanged'));
  if (changed.length > 0) throw new UserError(`The second apply changed:\n${changed.join('\n')}`);
}

async function restartAll(kubectl: Kubectl): Promise<void> {
  await kubectl.run('rollout', 'restart', 'deployments');
  await kubectl.rolledOut();
}

/** Deletes one pod of each Deployment without a grace period, one after the other. */
async function deletePods(kubectl: Kubectl): Promise<void> {
  for (const component of ['gateway', 'worker']) {
    const [pod = ''] = await kubectl.names('pods', `app.kubernetes.io/component=${component}`);
    await kubectl.run('delete', pod, '--grace-period=0', '--force');
    await kubectl.rolledOut();
  }
}

/** Drains a node without a StatefulSet's pod, whose volume might not follow. */
async function drain(kubectl: Kubectl): Promise<void> {
  const column = (names: string) => names.split(/\s+/).filter(Boolean);
  const nodes = column(await kubectl.run('get', 'nodes', '--output', 'jsonpath={.items[*].metadata.name}'));
  const path = 'jsonpath={.items[?(@.metadata.ownerReferences[0].kind=="StatefulSet")].spec.nodeName}';
  const fixed = column(await kubectl.run('get', 'pods', '--output', path));
  const node = nodes.find((name) => !fixed.includes(name));
  if (nodes.length < 2 || node === undefined) throw new UserError('--drain needs a second node without a volume.');
  try {
    await kubectl.run('drain', node, '--ignore-daemonsets', '--delete-emptydir-data', '--timeout=5m');
    await kubectl.rolledOut();
  } finally {
    await kubectl.run('uncordon', node);
  }
}

async function upgrade(kubectl: Kubectl, image: string): Promise<void> {
  await kubectl.run('set', 'image', 'deployments', '--all', `tollgate=${image}`);
  await kubectl.rolledOut();
}

type Disturbance = readonly [name: string, disturb: () => Promise<void>];

function disturbances(kubectl: Kubectl, { drain: drains, image }: Flags): Disturbance[] {
  return [
    ['Gateways, workers and auth service restart', () => restartAll(kubectl)],
    ['Pods are deleted without grace', () => deletePods(kubectl)],
    ...(drains ? [['A node is drained', () => drain(kubectl)] as const] : []),
    ...(image === undefined ? [] : [['An upgrade', () => upgrade(kubectl, image)] as const]),
  ];
}

/** Runs `work` with a way to the auth service, which has no Ingress. */
async function withCheck(
  kubectl: Kubectl,
  deployment: Omit<Deployment, 'authUrl'>,
  work: (check: DeploymentCheck) => Promise<unknown>,
): Promise<void> {
  const forwarded = await kubectl.forward('tollgate-auth', 8081);
  const check = new DeploymentCheck({ ...deployment, authUrl: forwarded.url });
  try {
    const deadline = performance.now() + TOKENS_TIMEOUT_MS;
    while (!(await check.hasTokens())) {
      if (performance.now() > deadline) throw new UserError('The auth service issues no tokens.');
      await delay(500);
    }
    await work(check);
  } finally {
    check.close();
    await forwarded.close();
  }
}

async function exercise(kubectl: Kubectl, flags: Flags, steps: Steps): Promise<void> {
  const deployment = { url: flags.url, issuer: ISSUER, secrets: readSecrets() };
  await withCheck(kubectl, deployment, async (check) => {
    await steps.run(
      () => 'A chat through the ingress',
      () => check.chat(),
    );
    await steps.run(
      (records) => `A bill of ${records} records`,
      () => check.bill(),
    );
    for (const [name, disturb] of disturbances(kubectl, flags)) {
      await steps.run(
        (figures) => `${name}: ${figures.events_lost} events lost, ${figures.events_repeated} repeated`,
        () => check.underLoad(LOAD, disturb),
      );
    }
  });
  // Another way to the auth service, because the restart has ended the first one.
  await withCheck(kubectl, deployment, async (check) => {
    await steps.run(
      (records) => `The bill has ${records} records, none twice and none missing`,
      () => check.bill(),
    );
  });
}

await runScript(async () => {
  const flags = parse();
  const steps = new Steps(process.stdout);
  const kubectl = new Kubectl(NAMESPACE);
  const existing = await kubectl.run('get', 'namespace', NAMESPACE, '--ignore-not-found', '--output', 'name');
  if (existing.trim() !== '') throw new UserError(`The namespace ${NAMESPACE} exists; this test would remove it.`);
  execFileSync(process.execPath, [join(PROJECT_ROOT, 'scripts/make-secrets.mjs'), SECRETS]);
  try {
    await steps.run(
      () => 'The overlay dev is applied twice and rolled out',
      () => applyTwice(kubectl),
    );
    await exercise(kubectl, flags, steps);
  } finally {
    if (!flags.keep)
      await steps.run(
        () => 'Removed',
        () => kubectl.run('delete', '--kustomize', OVERLAY, '--timeout=5m'),
      );
  }
  return 0;
});

/**
 * Runs a script of this project on a machine that has only Node 20 and npm: installs the dependencies where they are
 * missing or out of date, then hands over to the Node 24 that came with them.
 *
 *     node scripts/bootstrap.mjs [scripts/start.ts [arguments]]
 *
 * Without a script it only installs. It uses nothing that has to be installed, and no newer syntax than Node 14 reads,
 * so that an old Node gets a sentence instead of a stack.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const MIN_NODE = 20;
const ROOT = fileURLToPath(new URL('..', import.meta.url));
const NODE = join(ROOT, 'node_modules/.bin/node');
const LOCK = join(ROOT, 'package-lock.json');
const NPM_NOTE = join(ROOT, 'node_modules/.package-lock.json');
/** The digest of the package-lock.json that was last installed. */
const STAMP = join(ROOT, 'node_modules/.tollgate-installed');
const INSTALL_LOCK = join(ROOT, '.tollgate/install.lock');
/** A cold install takes half a minute here; whoever waits for another one longer than this should be told. */
const INSTALL_WAIT_MS = 10 * 60_000;
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/** A failure whose text is all that a person needs. */
class Refusal extends Error {}

function say(text) {
  // Standard output belongs to the script: its lines may be read by a program.
  process.stderr.write(`${text}\n`);
}

function lockDigest() {
  return createHash('sha256').update(readFileSync(LOCK)).digest('hex');
}

/**
 * Whether node_modules is what package-lock.json asks for: installed here from this very file, or by hand after the file
 * last changed (npm writes its own note last). Modification times alone would be wrong after a copy or a checkout.
 */
function isInstalled() {
  if (!existsSync(NODE)) return false;
  if (existsSync(STAMP) && readFileSync(STAMP, 'utf8') === lockDigest()) return true;
  return existsSync(NPM_NOTE) && statSync(NPM_NOTE).mtimeMs >= statSync(LOCK).mtimeMs;
}

/** npm as it was started, or else the one on the PATH. Its Node is not ours, which the install may be replacing. */
function npmCommand() {
  const cli = process.env.npm_execpath;
  if (cli && basename(cli).startsWith('npm') && existsSync(cli)) {
    return [process.env.npm_node_execpath || process.execPath, cli];
  }
  return ['npm'];
}

/** Passes on the signals that end us while `child` runs; the child decides what follows. */
function forwardSignals(child) {
  const forward = (signal) => child.kill(signal);
  for (const signal of FORWARDED) process.on(signal, forward);
  return () => {
    for (const signal of FORWARDED) process.off(signal, forward);
  };
}

/** Resolves with the exit code, as a shell would give it, when the process has ended. */
function ended(child) {
  const stopForwarding = forwardSignals(child);
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve(code === null ? 128 + (constants.signals[signal] || 0) : code));
  }).finally(stopForwarding);
}

function installAdvice(output) {
  if (/ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ECONNRESET|ENETUNREACH/.test(output)) {
    return 'The npm registry cannot be reached. Check the network (or the proxy and registry in .npmrc) and try again.';
  }
  if (/EACCES|EPERM/.test(output)) return `npm may not write here. Check who owns ${ROOT} and ~/.npm.`;
  if (/ENOSPC/.test(output)) return 'The disk is full.';
  return 'Fix what npm says above and try again.';
}

/**
 * `npm install`, not `npm ci`: npm leaves packages for other platforms out of package-lock.json when the registry it was
 * written with lacks them, and then `npm ci` refuses the whole file. Both take the versions that it names; `--no-save`
 * leaves it as it is.
 */
async function npmInstall() {
  const [command, ...args] = npmCommand();
  const startedAt = Date.now();
  say('Installing the dependencies (npm install); this happens once and takes up to a minute …');
  // NODE_ENV=production would leave out Node 24 and the tests.
  const child = spawn(command, [...args, 'install', '--no-save', '--include=dev', '--no-audit', '--no-fund'], {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      output += text;
    });
  }
  const code = await ended(child).catch((error) => {
    if (error.code !== 'ENOENT') throw error;
    throw new Refusal('npm is not on the PATH. Install it (it comes with Node.js: https://nodejs.org) and try again.');
  });
  if (code > 128 || /npm error signal SIG/.test(output)) throw new Refusal('Installing was interrupted.');
  if (code !== 0) {
    say(output.trim());
    throw new Refusal(
      `The dependencies could not be installed (npm install ended with ${code}). ${installAdvice(output)}`,
    );
  }
  if (!existsSync(NODE)) {
    throw new Refusal(
      'npm has not run the install script of the package "node", which fetches Node 24. Run it: npm rebuild node --ignore-scripts=false',
    );
  }
  writeFileSync(STAMP, lockDigest());
  say(`Installed in ${Math.round((Date.now() - startedAt) / 1000)} s.`);
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** The process that the lock names; 0 when it was given back meanwhile, or has no name in it yet. */
function lockHolder() {
  try {
    return Number(readFileSync(INSTALL_LOCK, 'utf8'));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return 0;
  }
}

/** Two installs in one folder destroy each other: `npm run chat` in a second terminal waits for `npm start` in the first. */
async function takeInstallLock() {
  mkdirSync(join(ROOT, '.tollgate'), { recursive: true });
  const deadline = Date.now() + INSTALL_WAIT_MS;
  let told = false;
  while (Date.now() < deadline) {
    try {
      writeFileSync(INSTALL_LOCK, String(process.pid), { flag: 'wx' });
      return;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    const holder = lockHolder();
    if (holder > 0 && !isAlive(holder)) rmSync(INSTALL_LOCK, { force: true });
    else if (!told) say('Another terminal is installing the dependencies; waiting for it …');
    told = true;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  throw new Refusal(`Another install has been running for ten minutes. If none is, delete ${INSTALL_LOCK}.`);
}

async function install() {
  if (isInstalled()) return;
  await takeInstallLock();
  try {
    if (!isInstalled()) await npmInstall();
  } finally {
    rmSync(INSTALL_LOCK, { force: true });
  }
}

/** Linux ends the script in order when this process is killed without a chance to forward anything. */
function endingWithUs(command) {
  if (process.platform !== 'linux') return command;
  const works = spawnSync('setpriv', ['--pdeathsig', 'TERM', '--', 'true']).status === 0;
  return works ? ['setpriv', '--pdeathsig', 'TERM', '--', ...command] : command;
}

async function main() {
  if (Number(process.versions.node.split('.')[0]) < MIN_NODE) {
    throw new Refusal(`Node ${MIN_NODE} or newer is needed, this is ${process.version}. See https://nodejs.org.`);
  }
  await install();
  const [script, ...args] = process.argv.slice(2);
  if (script === undefined) return 0;
  const [command, ...rest] = endingWithUs([NODE, script, ...args]);
  return ended(spawn(command, rest, { stdio: 'inherit' }));
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error) => {
    say(error instanceof Refusal ? error.message : `Starting failed: ${error.stack}`);
    process.exitCode = 1;
  },
);

/**
 * Runs a script of this project on a machine that has only Node 20 and npm: installs the dependencies if they are
 * missing or out of date, then starts the script on the Node 24 that they contain.
 *
 *     node scripts/bootstrap.mjs [scripts/start.ts [arguments]]
 *
 * Without a script it only installs. It uses no dependency and no syntax newer than Node 14, so that an old Node prints
 * a sentence instead of a stack trace.
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
/** A cold install takes half a minute here. Waiting for another install longer than this is an error. */
const INSTALL_WAIT_MS = 10 * 60_000;
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP'];

/** A failure whose message is sufficient for the user. */
class Refusal extends Error {}

function say(text) {
  // Standard output belongs to the script, because a program may read it.
  process.stderr.write(`${text}\n`);
}

function lockDigest() {
  return createHash('sha256').update(readFileSync(LOCK)).digest('hex');
}

/**
 * Returns whether node_modules matches package-lock.json: installed here from this very file, or by hand after the file
 * last changed (npm writes its own lock file last). Modification times alone are wrong after a copy or a checkout.
 */
function isInstalled() {
  if (!existsSync(NODE)) return false;
  if (existsSync(STAMP) && readFileSync(STAMP, 'utf8') === lockDigest()) return true;
  return existsSync(NPM_NOTE) && statSync(NPM_NOTE).mtimeMs >= statSync(LOCK).mtimeMs;
}

/**
 * Returns the npm that started this script, or the one on the PATH. It must not use the Node in node_modules, which the
 * install may replace.
 */
function npmCommand() {
  const cli = process.env.npm_execpath;
  if (cli && basename(cli).startsWith('npm') && existsSync(cli)) {
    return [process.env.npm_node_execpath || process.execPath, cli];
  }
  return ['npm'];
}

/** Forwards termination signals to `child` while it runs; the child decides what to do. */
function forwardSignals(child) {
  const forward = (signal) => child.kill(signal);
  for (const signal of FORWARDED) process.on(signal, forward);
  return () => {
    for (const signal of FORWARDED) process.off(signal, forward);
  };
}

/** Resolves with the exit code as a shell reports it. */
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
 * Runs `npm install`, not `npm ci`. npm leaves packages for other platforms out of package-lock.json if the registry it
 * was written with lacks them, and then `npm ci` rejects the whole file. Both install the locked versions; `--no-save`
 * leaves the file unchanged.
 */
async function npmInstall() {
  const [command, ...args] = npmCommand();
  const startedAt = Date.now();
  say('Installing the dependencies (npm install); this happens once and takes up to a minute …');
  // NODE_ENV=production would omit Node 24 and the tests.
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

/** Returns the pid in the lock file; 0 if the lock was released meanwhile or contains no pid yet. */
function lockHolder() {
  try {
    return Number(readFileSync(INSTALL_LOCK, 'utf8'));
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    return 0;
  }
}

/**
 * Two installs in one folder destroy each other: `npm run chat` in a second terminal waits for `npm start` in the
 * first.
 */
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

/** On Linux the kernel sends the script SIGTERM if this process is killed and cannot forward a signal. */
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

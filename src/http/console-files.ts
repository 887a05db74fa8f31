import { createHash } from 'node:crypto';
import { readdir, readFile, stat } from 'node:fs/promises';
import { extname, join, relative, sep } from 'node:path';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Clock } from '../lib/clock.ts';

const compress = promisify(gzip);

/** Name of the page that every path without a file extension gets. */
export const INDEX = 'index.html';
/** Bound of the built files together, which stay in memory; the console has about one megabyte. */
const MAX_BYTES = 16 * 1024 * 1024;
const MAX_FILES = 500;
/** A build that is added or replaced is noticed after this time. */
const CHECK_MS = 2_000;
/** Smaller responses do not become shorter by enough. */
const MIN_COMPRESSED_BYTES = 1_024;

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.ico': 'image/x-icon',
  '.woff2': 'font/woff2',
  '.webmanifest': 'application/manifest+json',
  '.txt': 'text/plain; charset=utf-8',
};
const COMPRESSIBLE = new Set(['.html', '.js', '.css', '.json', '.svg', '.webmanifest', '.txt']);

export interface ConsoleFile {
  readonly type: string;
  readonly body: Buffer;
  readonly gzipped: Buffer | undefined;
  readonly etag: string;
  /** Whether the name contains a hash of the content, so that the file never changes. */
  readonly isHashed: boolean;
}

type Files = ReadonlyMap<string, ConsoleFile>;

/**
 * The built files of the console, in memory. A request can name only a file that existed when the folder was read, so
 * no path of a request reaches the file system.
 */
export class ConsoleFiles {
  readonly #folder: string;
  readonly #clock: Pick<Clock, 'now'>;
  #files: Files = new Map();
  #builtAt = 0;
  #checkAfter = 0;
  #checking: Promise<void> | undefined;

  constructor(folder: string, clock: Pick<Clock, 'now'>) {
    this.#folder = folder;
    this.#clock = clock;
  }

  /** Whether the console is built. */
  get isBuilt(): boolean {
    return this.#files.size > 0;
  }

  /** @param path relative to `/console/`, with forward slashes; @returns undefined if there is no such file */
  async find(path: string): Promise<ConsoleFile | undefined> {
    if (this.#clock.now() >= this.#checkAfter) {
      this.#checking ??= this.#check().finally(() => {
        this.#checking = undefined;
      });
      await this.#checking;
    }
    return this.#files.get(path);
  }

  /** Reads the folder again if the build in it is another one. A folder that cannot be read is no build. */
  async #check(): Promise<void> {
    this.#checkAfter = this.#clock.now() + CHECK_MS;
    const built = await stat(join(this.#folder, INDEX)).catch(() => undefined);
    const builtAt = built?.mtimeMs ?? 0;
    if (builtAt === this.#builtAt) return;
    const files = builtAt === 0 ? new Map() : await readFiles(this.#folder).catch(() => undefined);
    // A build in progress: the next check reads it.
    if (!files) return;
    this.#files = files;
    this.#builtAt = builtAt;
  }
}

/** @throws Error if the folder changes meanwhile or exceeds the bounds */
async function readFiles(folder: string): Promise<Files> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const names = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  if (names.length > MAX_FILES) throw new Error(`more than ${MAX_FILES} files in the console's folder`);
  const files = new Map<string, ConsoleFile>();
  let bytes = 0;
  for (const name of names) {
    const type = TYPES[extname(name)];
    if (type === undefined) continue;
    const body = await readFile(name);
    bytes += body.length;
    if (bytes > MAX_BYTES) throw new Error(`more than ${MAX_BYTES} bytes in the console's folder`);
    const path = relative(folder, name).replaceAll(sep, '/');
    const isWorthIt = COMPRESSIBLE.has(extname(name)) && body.length >= MIN_COMPRESSED_BYTES;
    files.set(path, {
      type,
      body,
      gzipped: isWorthIt ? await compress(body, { level: 9 }) : undefined,
      // Weak, because it names both encodings.
      etag: `W/"${createHash('sha256').update(body).digest('base64url').slice(0, 27)}"`,
      isHashed: path.startsWith('assets/'),
    });
  }
  return files;
}

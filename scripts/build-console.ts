import { buildConsole } from './lib/console-build.ts';

/** `npm run build:console`: builds the console into console/dist, unless it is there already. */
process.stdout.write((await buildConsole()) ? 'The console is built.\n' : 'The console is up to date.\n');

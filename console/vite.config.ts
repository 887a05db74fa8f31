import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

const path = (relative: string) => fileURLToPath(new URL(relative, import.meta.url));
/** A gateway of `npm start`, for `npm run dev:console`. */
const GATEWAY = process.env.CONSOLE_GATEWAY ?? 'http://localhost:8000';

export default defineConfig({
  root: path('.'),
  base: '/console/',
  // The sources, so that no build of the packages has to precede the console's.
  resolve: {
    alias: [
      { find: '@tollgate/client/socketio', replacement: path('../packages/client/src/socketio.ts') },
      { find: '@tollgate/client', replacement: path('../packages/client/src/main.ts') },
    ],
  },
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    target: 'es2022',
    // The content security policy allows files of the gateway only, no data: fonts and no inline scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rolldownOptions: { checks: { pluginTimings: false } },
  },
  server: {
    proxy: {
      '/console/config.json': GATEWAY,
      '/v1': GATEWAY,
      '/health': GATEWAY,
      '/ws': { target: GATEWAY, ws: true },
      '/socket.io': { target: GATEWAY, ws: true },
    },
  },
});

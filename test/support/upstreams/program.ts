import { writeSync } from 'node:fs';
import { serveStdio } from '@modelcontextprotocol/server/stdio';
import { echo, mcpServer, type ServerScript, text } from './mcp-script.ts';

/** Writes synchronously, because a program that floods its output does not wait for the reader. */
const STDOUT = 1;
const NOTE = `${JSON.stringify({ jsonrpc: '2.0', method: 'notifications/message', params: { level: 'info', data: 'x' } })}\n`;

/** An MCP server over stdio with tools that misbehave. */
const script: ServerScript = {
  tools: {
    echo,
    environment: { run: () => text(Object.keys(process.env).sort().join(' ')) },
    secret: { run: () => text(process.env.SECRET ?? 'none') },
    pid: { run: () => text(String(process.pid)) },
    die: { run: () => process.exit(3) },
    hang: { run: () => new Promise(() => undefined) },
    // Blocks the event loop of the program.
    block: {
      run: () => {
        for (;;);
      },
    },
    flood: {
      run: () => {
        for (;;) writeAll(NOTE.repeat(100));
      },
    },
    endless: {
      run: () => {
        for (;;) writeAll('x'.repeat(65_536));
      },
    },
    garbage: {
      run: () => {
        writeAll('this is no JSON\n{"jsonrpc":"2.0","id":\n[1,2,3]\n');
        return text('after garbage');
      },
    },
    complain: {
      run: () => {
        process.stderr.write('complaints '.repeat(10_000));
        return text('complained');
      },
    },
  },
};

function writeAll(words: string): void {
  const bytes = Buffer.from(words);
  for (let at = 0; at < bytes.length; ) {
    try {
      at += writeSync(STDOUT, bytes, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') process.exit(4);
    }
  }
}

serveStdio(() => mcpServer(script));

import { describe, expect, it } from '@jest/globals';
import { ManagedProcess, type Startable } from '../../scripts/lib/processes.ts';
import { Supervisor } from '../../scripts/lib/supervisor.ts';
import { closeAfter } from '../support/open-resources.ts';
import { until } from '../support/until.ts';

/** A real process of this shell script, ready as soon as it runs. */
function shell(script: string): Startable {
  return {
    name: 'subject',
    launch: () => new ManagedProcess({ name: 'subject', command: 'sh', args: ['-c', script], env: process.env }),
    isReady: async () => true,
  };
}

function supervise(startable: Startable) {
  const reports: string[] = [];
  const report = (text: string) => reports.push(text);
  const supervisor = new Supervisor(startable, { report, restartDelayMs: 10, maxDeaths: 3, windowMs: 60_000 });
  closeAfter('test', () => supervisor.kill());
  return { supervisor, reports };
}

describe('a supervisor', () => {
  it('starts a process again that was killed', async () => {
    const { supervisor, reports } = supervise(shell('exec sleep 60'));
    await supervisor.start();
    const first = supervisor.pid as number;
    process.kill(first, 'SIGKILL');
    await until(() => reports.some((text) => text.startsWith('subject is back')));
    expect(supervisor.pid).not.toBe(first);
    expect(reports[0]).toBe('subject was ended by SIGKILL; restarting it.');
  });

  it('gives up on a process that dies again and again, and shows what it printed last', async () => {
    const { supervisor, reports } = supervise(shell('echo no luck; exit 3'));
    await supervisor.start();
    await until(() => reports.some((text) => text.includes('giving up')));
    await until(() => reports.some((text) => text.includes('no luck')));
    expect(reports.filter((text) => text.includes('restarting'))).toHaveLength(2);
  });

  it('does not restart what it has stopped', async () => {
    const { supervisor, reports } = supervise(shell('exec sleep 60'));
    await supervisor.start();
    await supervisor.stop(1_000);
    expect(reports).toEqual([]);
    expect(() => process.kill(supervisor.pid as number, 0)).toThrow('ESRCH');
  });

  it('ends a process that ignores SIGTERM when the grace is over', async () => {
    const { supervisor } = supervise(shell(`trap '' TERM; echo up; while :; do sleep 0.05; done`));
    await supervisor.start();
    await supervisor.stop(100);
    expect(() => process.kill(supervisor.pid as number, 0)).toThrow('ESRCH');
  });

  it('tells the last output of a process that never gets ready', async () => {
    const { supervisor } = supervise({ ...shell('echo the port is taken; exit 1'), isReady: async () => false });
    await expect(supervisor.start()).rejects.toThrow(
      /ended with exit code 1 before it was ready[\s\S]*the port is taken/,
    );
  });
});

import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { readScript, scriptFiles } from '../src/redis/scripts.ts';
import { type Client, connectWs } from './lib/clients.ts';
import { cpuMicros } from './lib/cpu.ts';
import { Deployment } from './lib/deployment.ts';

const USERS = Number(process.env.USERS ?? 50);
const RATE = Number(process.env.RATE ?? 60);
const SECONDS = Number(process.env.SECONDS ?? 10);
const IDLE_SECONDS = Number(process.env.IDLE ?? 5);
const BUILTIN_SHAS = new Map<string, string>();
const PROF = process.env.PROF;
const MESSAGE = process.env.MESSAGE ?? 'How is my workload doing?';

interface Sample {
  cpu: Record<string, number>;
  stats: Map<string, { calls: number; usec: number }>;
  lua: Map<string, { calls: number; usec: number }>;
  at: number;
}

const deployment = await Deployment.start();
try {
  const gateway = await deployment.gateway();
  const worker = await deployment.worker(
    PROF ? { NODE_OPTIONS: `--cpu-prof --cpu-prof-interval=200 --cpu-prof-dir=${PROF}` } : {},
  );
  const admin = new Redis(deployment.redis.url);
  for (const f of scriptFiles())
    BUILTIN_SHAS.set(createHash('sha1').update(readScript(f)).digest('hex'), f.replace('.lua', ''));
  const pids = { redis: deployment.redisPid, worker: worker.pid, gateway: gateway.pid };
  const clients: Client[] = [];
  for (let i = 0; i < USERS; i++) clients.push(await connectWs(gateway.url, deployment.token(`u${i}`)));
  const turn = async (c: Client) => {
    const p = c.next('agent_completed');
    const t = performance.now();
    const f = c.next('agent_started');
    c.send('agent_request', { message: MESSAGE });
    await f;
    const first = performance.now() - t;
    await p;
    return first;
  };
  const memory = async () => {
    const i = await admin.info('memory');
    return Number(/used_memory:(\d+)/.exec(i)?.[1]);
  };
  const mem0 = await memory();
  if (USERS > 200) {
    for (let i = 0; i < USERS; i += 20) await Promise.all(clients.slice(i, i + 20).map(turn));
  } else for (const c of clients) await turn(c);
  await delay(1500);
  const mem1 = await memory();
  const take = async (): Promise<Sample> => {
    const cpu = Object.fromEntries(Object.entries(pids).map(([k, p]) => [k, cpuMicros(p)]));
    const info = await admin.info('cpu');
    cpu.redisUser = 1e6 * Number(/used_cpu_user_main_thread:([\d.]+)/.exec(info)?.[1]);
    cpu.redisSys = 1e6 * Number(/used_cpu_sys_main_thread:([\d.]+)/.exec(info)?.[1]);
    const stats = new Map<string, { calls: number; usec: number }>();
    for (const m of (await admin.info('commandstats')).matchAll(/cmdstat_([^:]+):calls=(\d+),usec=(\d+)/g))
      stats.set(m[1] ?? '', { calls: Number(m[2]), usec: Number(m[3]) });
    return { cpu, stats, lua: new Map(), at: performance.now() };
  };
  const events = async () => {
    let n = 0;
    for (const k of await admin.keys('*:log-state')) n += Number(await admin.hget(k, 'seq'));
    return n;
  };
  const firsts: number[] = [];
  const load = async (seconds: number) => {
    const started = performance.now();
    let sent = 0;
    const pending: Promise<void>[] = [];
    const busy = new Set<number>();
    for (;;) {
      const elapsed = (performance.now() - started) / 1000;
      if (elapsed >= seconds) break;
      while (sent < elapsed * RATE) {
        const who = sent % USERS;
        sent++;
        const c = clients[who];
        if (!c) continue;
        if (busy.has(who)) {
          continue;
        }
        busy.add(who);
        pending.push(
          turn(c).then((t) => {
            firsts.push(t);
            busy.delete(who);
          }),
        );
      }
      await delay(5);
    }
    await Promise.all(pending);
    return pending.length;
  };
  await load(2);
  firsts.length = 0;
  const idle0 = await take();
  await delay(IDLE_SECONDS * 1000);
  const idle1 = await take();
  const e0 = await events();
  const a = await take();
  const turns = await load(SECONDS);
  const b = await take();
  const e1 = await events();
  const idleRate = (f: (s: Sample) => number) => (f(idle1) - f(idle0)) / (idle1.at - idle0.at);
  const net = (f: (s: Sample) => number) => (f(b) - f(a) - idleRate(f) * (b.at - a.at)) / turns;
  const out: Record<string, unknown> = { turns, eventsPerTurn: (e1 - e0) / turns, bytesPerUser: (mem1 - mem0) / USERS };
  for (const k of Object.keys(pids)) {
    out[`${k} us/turn`] = net((s) => s.cpu[k] ?? 0).toFixed(0);
  }
  for (const k of Object.keys(pids)) {
    out[`${k} idle us/s`] = (1000 * idleRate((s) => s.cpu[k] ?? 0)).toFixed(0);
  }
  firsts.sort((x, y) => x - y);
  out.first50 = firsts[Math.floor(firsts.length / 2)]?.toFixed(2);
  out.first99 = firsts[Math.floor(firsts.length * 0.99)]?.toFixed(2);
  console.log(out);
  const names = new Set([...a.stats.keys(), ...b.stats.keys()]);
  const rows: [string, number, number][] = [];
  for (const n of names) {
    const calls = net((s) => s.stats.get(n)?.calls ?? 0);
    const us = net((s) => s.stats.get(n)?.usec ?? 0);
    if (Math.abs(calls) > 0.03) rows.push([n, calls, us]);
  }
  rows.sort((x, y) => y[2] - x[2]);
  for (const [n, c, u] of rows) console.log(n.padEnd(16), c.toFixed(2).padStart(8), u.toFixed(1).padStart(9));
  console.log(
    'commands total',
    rows
      .filter(([n]) => n !== 'evalsha')
      .reduce((x, [, c]) => x + c, 0)
      .toFixed(1),
  );
  if (process.env.SLOW) {
    await admin.config('SET', 'slowlog-log-slower-than', '0');
    await admin.config('SET', 'slowlog-max-len', '1000000');
    await admin.call('SLOWLOG', 'RESET');
    const turns2 = await load(Number(process.env.SLOW));
    await admin.config('SET', 'slowlog-log-slower-than', '-1');
    const log = (await admin.call('SLOWLOG', 'GET', '1000000')) as [number, number, number, string[], string, string][];
    const by = new Map<string, { n: number; us: number }>();
    const self = await admin.client('ID');
    for (const [, , us, args] of log) {
      let key = (args[0] ?? '').toLowerCase();
      if (key === 'evalsha' || key === 'eval') {
        const sha = args[1] ?? '';
        const name = BUILTIN_SHAS.get(sha) ?? sha.slice(0, 8);
        const k = args.find((x) => x.includes(':bull}:')) ?? '';
        const q = /:bull\}:([a-z-]+)/.exec(k)?.[1] ?? '';
        key = `evalsha ${name}${q ? ` bull ${q} keys=${args[2]}` : ''}`;
      } else if ((args[1] ?? '').includes('bull}:')) key += ` bull ${/:bull\}:([a-z-]+)/.exec(args[1] ?? '')?.[1]}`;
      const e = by.get(key) ?? { n: 0, us: 0 };
      e.n++;
      e.us += us;
      by.set(key, e);
    }
    console.log('--- slowlog per turn', turns2, self);
    for (const [k, { n, us }] of [...by].sort((x, y) => y[1].us - x[1].us).slice(0, 30))
      console.log(k.padEnd(60), (n / turns2).toFixed(2).padStart(8), (us / turns2).toFixed(1).padStart(9));
  }
  if (process.env.OUT) writeFileSync(process.env.OUT, JSON.stringify({ out, rows }));
  for (const c of clients) c.close();
  admin.disconnect();
  await worker.stop();
} finally {
  await deployment.close();
}

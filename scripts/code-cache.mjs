// Keeps what V8 compiles of the program when it starts: has it do what others wait for, a daemon that takes guests over and a
// machine that arrives, and each of its threads writes down what was compiled of its files. Its argument is where they are.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { scratch } from './bootstrap.mjs';

const target = resolve(process.argv[2]);
const directory = scratch('code-cache');
const at = name => join(directory, name);
const GUESTS = ['one', 'two', 'three'];
const WORK_MS = 300;
const PATIENCE_MS = 30_000;

const children = new Set();
process.once('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

function start(...words) {
  const child = spawn(process.execPath, ['--v8-pool-size=1', join(target, 'program/main.cjs'), ...words], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: {
      PATH: process.env.PATH,
      HOME: directory,
      XDG_RUNTIME_DIR: directory,
      AEROSTAT_CODE_CACHE: 'write',
    },
  });
  children.add(child);
  child.said = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', text => {
      child.said += text;
    });
  child.ended = once(child, 'exit').then(([code]) => {
    children.delete(child);
    return code;
  });
  return child;
}

async function until(condition, child, what) {
  const deadline = performance.now() + PATIENCE_MS;
  while (!condition()) {
    if (performance.now() > deadline || child.exitCode !== null) throw new Error(`${what}: ${child.said}`);
    await delay(5);
  }
}

async function end(child) {
  child.kill('SIGTERM');
  await child.ended;
}

async function daemons() {
  const { ClockedGuest } = await import(pathToFileURL(join(target, 'bench/restart/guest.js')).href);
  const keeper = start('keep', at('keeper.sock'));
  await until(() => existsSync(at('keeper.sock')), keeper, 'the keeper');
  const words = ['device', '--log-level', 'debug', '--api', at('api.sock'), '--keep', at('keeper.sock')];
  const sockets = GUESTS.flatMap(name => ['--socket-path', at(name)]);
  let guests = [];
  for (let round = 0; round < 3; round++) {
    const daemon = start(...words, ...sockets);
    await until(() => daemon.said.includes('the API answers'), daemon, 'a daemon');
    if (guests.length === 0) guests = GUESTS.map(name => new ClockedGuest(at(name)));
    const untilMs = performance.now() + WORK_MS;
    while (performance.now() < untilMs) {
      for (const guest of guests) guest.step();
      await delay(1);
    }
    for (const command of ['status', 'set'])
      await start(command, ...(command === 'set' ? ['one', '--balloon', '1M'] : []), '--api', at('api.sock'))
        .ended;
    await end(daemon);
  }
  for (const guest of guests) guest.close();
  await end(keeper);
}

async function machines() {
  const vm = start('vm', '--memory', '64M', '--api', at('vm.sock'));
  const place = start('receive', '--listen', '127.0.0.1:0', '--api', at('there.sock'), '--json');
  await until(() => place.said.includes('listening'), place, 'a place for a machine');
  await until(() => existsSync(at('vm.sock')), vm, 'a machine');
  const { address } = JSON.parse(/\{.*listening.*\}/.exec(place.said)[0]);
  const move = start('migrate', 'vm', `tcp:${address}`, '--api', at('vm.sock'));
  await move.ended;
  await end(place);
  await end(vm);
}

await daemons();
await machines();
for (const words of [['--version'], ['--help'], ['doctor']]) await start(...words).ended;

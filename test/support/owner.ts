/**
 * A process that owns others, to be killed: what it leaves behind is known by a mark that all of its processes have in
 * their environment.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import type { Readable } from 'node:stream';

/** Runs `script`, a module in which `load(path)` imports a source of ours, with the mark for its TMPDIR. */
export function startOwner(
  script: string,
  mark: string,
  ...words: string[]
): ChildProcessByStdio<null, Readable, null> {
  const loader = `import { runnerImport } from 'vite';
    const load = async path => (await runnerImport(path)).module;`;
  return spawn(process.execPath, ['--input-type=module', '-e', `${loader}\n${script}`, ...words], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, TMPDIR: mark },
  });
}

function isMarked(pid: string, mark: string): boolean {
  try {
    // That of a zombie is empty.
    return readFileSync(`/proc/${pid}/environ`, 'utf8').includes(mark);
  } catch {
    return false; // It ended meanwhile, or is not ours.
  }
}

/** The processes that have the mark in their environment, our own and our parents excepted. */
export function processesMarked(mark: string): number[] {
  const pids = readdirSync('/proc').filter(name => /^\d+$/.test(name) && name !== String(process.pid));
  return pids.filter(pid => isMarked(pid, mark)).map(Number);
}

/** What a test that failed leaves. */
export function killMarked(mark: string): void {
  for (const pid of processesMarked(mark)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It ended meanwhile.
    }
  }
}

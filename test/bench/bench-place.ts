/** Where a bench runs as a person runs it: a process group and a directory of its own, so that what is left shows. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { BenchReport } from '../../src/bench/report.ts';
import { program } from '../cli/built.ts';

export class BenchPlace {
  readonly #directory = mkdtempSync(join(tmpdir(), 'aerostat-test-'));
  readonly #temporary = join(this.#directory, 'tmp');
  readonly #groups = new Set<number>();

  constructor() {
    mkdirSync(this.#temporary);
  }

  /** `aerostat bench …`, as the leader of a process group. */
  start(words: string): ChildProcess {
    const files = ['--json', this.#file('r.json'), '--report', this.#file('r.html')];
    const child = spawn(process.execPath, [program, 'bench', ...words.split(' '), ...files], {
      detached: true,
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, TMPDIR: this.#temporary },
    });
    if (child.pid !== undefined) this.#groups.add(child.pid);
    return child;
  }

  /** Runs it to its end. */
  async run(words: string): Promise<{ report: BenchReport; page: string }> {
    const [code] = await once(this.start(words), 'exit');
    if (code !== 0) throw new Error(`aerostat bench ${words} ended with ${code}`);
    return {
      report: JSON.parse(readFileSync(this.#file('r.json'), 'utf8')),
      page: readFileSync(this.#file('r.html'), 'utf8'),
    };
  }

  /** Programs that still run for it, by the environment that all of them inherit. */
  get programs(): string[] {
    return readdirSync('/proc').flatMap(pid => {
      try {
        if (!readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`TMPDIR=${this.#temporary}\0`))
          return [];
        return [readFileSync(`/proc/${pid}/comm`, 'latin1').trim()];
      } catch {
        return []; // No process, one that is gone, or another user's.
      }
    });
  }

  /** What it has not cleared away: programs and files. */
  get remains(): string[] {
    return [...this.programs, ...readdirSync(this.#temporary)];
  }

  close(): void {
    for (const group of this.#groups) {
      try {
        process.kill(-group, 'SIGKILL');
      } catch {
        // It is gone, as it should be.
      }
    }
    rmSync(this.#directory, { recursive: true });
  }

  #file(name: string): string {
    return join(this.#directory, name);
  }
}

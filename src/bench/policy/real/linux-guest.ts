/**
 * A Linux kernel that plays a trace: User Mode Linux, whose programs are busybox's. Memory is held by copies of dd that
 * have filled their buffers and wait to write them; files are a block device that is read on, so that its pages are page
 * cache. There is no swap.
 */
import { closeSync, ftruncateSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { LinuxGuest } from '../../../peers/linux/guest.ts';
import { UmlGuest } from '../../../peers/uml/guest.ts';
import type { GuestWish, RealGuest } from './guests.ts';

const MIB = 2 ** 20;
/** What one program holds. */
const PROGRAM_MIB = 8;
const READ_MIB = 1;
/** A sparse file: reading it costs the host no memory. */
const DISK_MIB = 1024;
const PIPE = '/run/held';

/** Starts so many programs, waits until each has its memory or is gone, and prints their process ids. */
const startPrograms = (count: number): string => `
for i in $(seq ${count}); do
  dd if=/dev/zero of=${PIPE} bs=${PROGRAM_MIB}M count=1 >/dev/null 2>&1 &
  p="$p $!"
done
for one in $p; do
  while r=$(awk '/VmRSS/{print $2}' /proc/$one/status 2>/dev/null) && [ -n "$r" ] && [ $r -lt ${PROGRAM_MIB * 1024} ]; do
    usleep 5000
  done
done
echo $p`;

export class LinuxPlayer implements RealGuest {
  readonly name: string;
  readonly #guest: LinuxGuest;
  readonly #disk: string;
  #programs: string[] = [];
  #kills = 0;
  #readMib = 0;
  #unreadBytes = 0;
  #latest: GuestWish | undefined;
  #atWork: Promise<boolean> | undefined;

  private constructor(name: string, guest: LinuxGuest, disk: string) {
    this.name = name;
    this.#guest = guest;
    this.#disk = disk;
  }

  static async boot(
    name: string,
    socketPath: string,
    { memoryBytes, directory, signal }: { memoryBytes: number; directory: string; signal: AbortSignal },
  ): Promise<LinuxPlayer> {
    const disk = join(directory, `${name}.disk`);
    const file = openSync(disk, 'wx');
    ftruncateSync(file, DISK_MIB * MIB);
    closeSync(file);
    const kernelArguments = [`ubd0r=${disk}`];
    const guest = await UmlGuest.boot({ memoryBytes, sockets: [socketPath], kernelArguments, signal });
    await guest.check(`mkfifo ${PIPE} && (sleep 1000000 <>${PIPE} >/dev/null 2>&1 &)`);
    return new LinuxPlayer(name, guest, disk);
  }

  async want(wish: GuestWish): Promise<boolean> {
    this.#unreadBytes = wish.filesBytes === 0 ? 0 : this.#unreadBytes + wish.readBytes;
    this.#latest = wish;
    this.#atWork ??= this.#work().finally(() => {
      this.#atWork = undefined;
    });
    return this.#atWork;
  }

  async close(): Promise<void> {
    await this.#guest.shutdown();
    rmSync(this.#disk, { force: true });
  }

  /** Works off what is wanted, the newest only. */
  async #work(): Promise<boolean> {
    let alive = true;
    for (let wish = this.#latest; wish !== undefined; wish = this.#latest) {
      this.#latest = undefined;
      await this.#resize(Math.round(wish.programsBytes / MIB / PROGRAM_MIB));
      await this.#read(wish.filesBytes);
      alive = (await this.#survived()) && alive;
    }
    return alive;
  }

  async #resize(count: number): Promise<void> {
    const excess = this.#programs.splice(count);
    if (excess.length > 0) await this.#guest.run(`kill -9 ${excess.join(' ')}`);
    const missing = count - this.#programs.length;
    if (missing <= 0) return;
    const started = await this.#guest.check(startPrograms(missing));
    this.#programs.push(...started.trim().split(/\s+/));
  }

  async #read(filesBytes: number): Promise<void> {
    if (filesBytes === 0) {
      if (this.#readMib > 0) await this.#guest.check('echo 1 >/proc/sys/vm/drop_caches');
      this.#readMib = 0;
      return;
    }
    const filesMib = Math.max(1, Math.min(DISK_MIB, Math.round(filesBytes / MIB)));
    const count = Math.min(filesMib, Math.floor(this.#unreadBytes / MIB / READ_MIB) * READ_MIB);
    if (count === 0) return;
    this.#unreadBytes -= count * MIB;
    const from = this.#readMib % filesMib;
    this.#readMib = from + count;
    await this.#guest.check(`dd if=/dev/ubda of=/dev/null bs=1M skip=${from} count=${count} 2>/dev/null`);
  }

  /** Whether the kernel has killed nothing since it was asked last. */
  async #survived(): Promise<boolean> {
    const said = await this.#guest.check('grep "^oom_kill " /proc/vmstat');
    const kills = Number(said.trim().split(' ')[1]);
    if (kills === this.#kills) return true;
    this.#kills = kills;
    const there = await this.#guest.run(
      `for p in ${this.#programs.join(' ')}; do [ -d /proc/$p ] && echo $p; done`,
    );
    this.#programs = there.output
      .trim()
      .split(/\s+/)
      .filter(pid => pid !== '');
    return false;
  }
}

/** A file of a FUSE file system that answers nothing: what a hostile front-end may hand over as whatever it likes. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import koffi from 'koffi';
import { OwnedFd } from '../../src/sys/fd.ts';
import { Shed } from '../../src/sys/shed.ts';

const MNT_DETACH = 2;

export interface SilentFuse {
  /** No process answers for it any more. It is closed in a shed, and so are its duplicates. */
  readonly file: OwnedFd;
  /** Ends the file system's process: the kernel gives up all that waits for it. */
  end(): Promise<void>;
}

/** Undefined where this process may not mount one, or has no FUSE. */
export async function silentFuse(): Promise<SilentFuse | undefined> {
  if (!existsSync('/dev/fuse') || process.getuid?.() !== 0) return undefined;
  const directory = mkdtempSync(join(tmpdir(), 'aerostat-fuse-'));
  const program = new URL('./silent-fuse-server.mjs', import.meta.url).pathname;
  const server = spawn(process.execPath, [program, directory], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = new Promise(resolve => server.once('exit', resolve));
  const word = await new Promise<string>(resolve => {
    server.stdout.once('data', (data: Buffer) => resolve(data.toString().trim()));
    server.once('exit', () => resolve('gone'));
  });
  const end = async () => {
    server.kill('SIGKILL');
    await exited;
    koffi.load('libc.so.6').func('int umount2(const char *target, int flags)')(directory, MNT_DETACH);
    rmSync(directory, { recursive: true, force: true });
  };
  if (word !== 'mounted') {
    await end();
    return undefined;
  }
  return { file: new OwnedFd(openSync(join(directory, 'memory'), 'r+'), new Shed()), end };
}

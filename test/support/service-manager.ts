/**
 * A stand-in for a service manager with a store of descriptors: it binds the socket for notifications, stores what comes with
 * `FDSTORE=1` as systemd does (one of those that share an open file, by `kcmp`), and gives all of it to the next process.
 */
import { OwnedFd } from '../../src/sys/fd.ts';
import { isSameOpenFile } from '../../src/sys/file.ts';
import { check, libc } from '../../src/sys/libc.ts';
import { Arena } from '../../src/sys/mapping.ts';
import { UnixSocket } from '../../src/sys/socket.ts';

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0o2000000;

export class ServiceManager {
  readonly path: string;
  readonly stored: { readonly name: string; readonly fd: OwnedFd }[] = [];
  /** What was told beside descriptors. */
  readonly told: string[] = [];
  /** Descriptors that were not stored, since one of their open file was there. */
  suppressed = 0;
  /** FileDescriptorStoreMax=, where it is told (systemd 254). */
  roomMax: number | undefined;
  readonly #socket: UnixSocket;

  constructor(path: string) {
    this.path = path;
    const name = new TextEncoder().encode(path);
    const arena = new Arena(4096);
    arena.view.setUint16(0, AF_UNIX, true);
    arena.bytes.set(name, 2);
    const fd = new OwnedFd(check('socket', libc.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0)));
    check('bind', libc.bind(fd.number, arena.address, name.length + 3), path);
    arena.close();
    this.#socket = new UnixSocket(fd);
  }

  get names(): string[] {
    return this.stored.map(({ name }) => name).sort();
  }

  /** Does what it was told since. */
  serve(): void {
    const bytes = new Uint8Array(4096);
    for (let got = this.#socket.receive(bytes); got !== undefined; got = this.#socket.receive(bytes)) {
      const text = new TextDecoder().decode(bytes.subarray(0, got.length));
      const fields = new Set(text.split('\n').map(line => line.split('=')[0]));
      // A name may have this character, too.
      const name = /^FDNAME=(.*)$/m.exec(text)?.[1] ?? '';
      if (fields.has('FDSTORE')) for (const fd of got.fds) this.#store(name, fd);
      else if (fields.has('FDSTOREREMOVE')) this.#remove(name);
      else this.told.push(text);
    }
  }

  #store(name: string, fd: OwnedFd): void {
    if (this.stored.some(other => isSameOpenFile(other.fd, fd))) this.suppressed++;
    else if (this.stored.length < (this.roomMax ?? Number.POSITIVE_INFINITY)) {
      this.stored.push({ name, fd });
      return;
    }
    fd.close();
  }

  #remove(name: string): void {
    for (const entry of this.stored.filter(stored => stored.name === name)) {
      entry.fd.close();
      this.stored.splice(this.stored.indexOf(entry), 1);
    }
  }

  /** What the next process finds in its environment, but for LISTEN_PID, which is its own. */
  environment(): Record<string, string> {
    return {
      NOTIFY_SOCKET: this.path,
      LISTEN_FDS: String(this.stored.length),
      LISTEN_FDNAMES: this.stored.map(({ name }) => name).join(':'),
      ...(this.roomMax === undefined ? {} : { FDSTORE: String(this.roomMax) }),
    };
  }

  close(): void {
    for (const { fd } of this.stored.splice(0)) fd.close();
    this.#socket.close();
  }
}

/** What a service manager is told of this process (sd_notify(3)), where one has asked for it. Descriptors are `keeping/`'s. */
import { SystemError } from './error.ts';
import { OwnedFd } from './fd.ts';
import { UnixSocket } from './socket.ts';

/** The first descriptor that a service manager passes (sd_listen_fds(3)). */
const PASSED_MIN = 3;

type Environment = Readonly<Record<string, string | undefined>>;

/** A socket to the service manager; undefined where there is none that this process could talk to. @throws SystemError */
export function connectToServiceManager({ NOTIFY_SOCKET: name = '' }: Environment): UnixSocket | undefined {
  // Other kinds (vsock:) are for machines, not for services.
  return /^[/@]./.test(name) ? UnixSocket.connectDatagram(name) : undefined;
}

/**
 * Tells it how this process stands, as lines of `NAME=value`. It is waited for in no case: a manager that listens no more, or
 * is busy, is no reason to end or to stand still.
 */
export function tellServiceManager(env: Environment, ...lines: readonly string[]): void {
  try {
    const socket = connectToServiceManager(env);
    socket?.send(new TextEncoder().encode(lines.join('\n')));
    socket?.close();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
  }
}

/**
 * The descriptors that it passed to this process under names that are `ours`, which are the caller's; to be asked once. Others, of
 * a socket unit for example, stay as they are.
 */
export function passedDescriptors(
  { LISTEN_PID: pid, LISTEN_FDS: passed, LISTEN_FDNAMES: all = '' }: Environment,
  ours: (name: string) => boolean,
): [name: string, fd: OwnedFd][] {
  if (Number(pid) !== process.pid) return [];
  const names = all.split(':').slice(0, Number(passed) || 0);
  return names.flatMap((name, at): [string, OwnedFd][] => {
    if (!ours(name)) return [];
    const fd = new OwnedFd(PASSED_MIN + at);
    fd.setCloseOnExec();
    return [[name, fd]];
  });
}

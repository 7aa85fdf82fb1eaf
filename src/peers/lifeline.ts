/**
 * Command lines for programs that end when we do, even when we are killed by SIGKILL and can do nothing about it any
 * more: a program that leads a process group gets a guard for the group, a program that is one process is bound to us by
 * the kernel. Nothing is started here.
 */
import { existsSync } from 'node:fs';
import { InvariantError } from '../sys/error.ts';

/** A program with its arguments, as spawn() takes them. */
export type Command = readonly [program: string, args: string[]];

const SHELL = '/bin/sh';
/** Has the kernel kill a program when the thread that started it ends. Part of every Debian (util-linux). */
const SETPRIV = '/usr/bin/setpriv';
/** A POSIX shell takes descriptors of one digit in redirections. */
const DESCRIPTOR_MAX = 9;

/**
 * Waits for the end of a pipe that nothing is written to, removes the directory that it was given, if any, and kills its own
 * process group, itself included. What a program of the group writes meanwhile goes with the second attempt.
 */
const GUARD = 'read -r _; [ -z "$1" ] || rm -rf -- "$1" || rm -rf -- "$1"; kill -KILL 0';

const withParentDeathSignal = (): string[] => (existsSync(SETPRIV) ? [SETPRIV, '--pdeathsig', 'KILL'] : []);

/**
 * Starts `program`, and in the same process group a guard: a shell that kills the group when descriptor `lifeline`
 * reaches its end of file. Give the program a pipe there whose other end only we hold, so that however we end, and
 * however far the program has come, the kernel closes it. The guard is there before the program, belongs to the group
 * (so that the group's number cannot be given to another one while it waits), holds no other descriptor of the
 * program's, and ignores the signals that ask a group to end. To be spawned detached: the group it kills is its own.
 * `directory` is what the program has for itself: it goes with it.
 */
export function guarded(program: string, args: readonly string[], lifeline: number, directory = ''): Command {
  if (lifeline < 3 || lifeline > DESCRIPTOR_MAX) throw new InvariantError(`a lifeline at ${lifeline}`);
  const inherited = Array.from({ length: lifeline - 3 }, (_, index) => `${index + 3}<&-`);
  const descriptors = [`<&${lifeline}`, `${lifeline}<&-`, '>/dev/null', '2>&1', ...inherited].join(' ');
  const script = `(trap '' HUP INT TERM; exec ${SHELL} -c '${GUARD}' aerostat-guard "$1" ${descriptors}) &
shift
exec ${lifeline}<&- "$@"`;
  return [SHELL, ['-c', script, 'sh', directory, ...withParentDeathSignal(), program, ...args]];
}

/**
 * Starts `program`, which the kernel kills when our thread ends. A parent that ended before this was arranged is noticed
 * by its process id. For programs that start no further processes, and from threads that live as long as those do.
 */
export function bound(program: string, args: readonly string[]): Command {
  const deathSignal = withParentDeathSignal();
  if (deathSignal.length === 0) return [program, [...args]];
  const [setpriv, ...options] = deathSignal;
  const script = '[ "$PPID" = "$0" ] && exec "$@"';
  return [setpriv, [...options, SHELL, '-c', script, String(process.pid), program, ...args]];
}

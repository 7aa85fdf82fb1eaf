/** What other processes spend. */
import { readFileSync } from 'node:fs';

/** Clock ticks of /proc/PID/stat. */
const TICK_MS = 10;

/** The fields of /proc/PID/stat (proc_pid_stat(5)) from the third on: a name may have anything in it. */
const fieldsOf = (pid: number): readonly string[] =>
  readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];

/** User and system time of a process in milliseconds (fields 14 and 15). */
export function cpuMsOf(pid: number): number {
  const fields = fieldsOf(pid);
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

/** The same of its children that have ended, and that it has awaited (fields 16 and 17). */
export function childrenCpuMs(pid: number): number {
  const fields = fieldsOf(pid);
  return (Number(fields[13]) + Number(fields[14])) * TICK_MS;
}

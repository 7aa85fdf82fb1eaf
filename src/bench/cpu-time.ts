/** What other processes spend. */
import { readFileSync } from 'node:fs';

/** Clock ticks of /proc/PID/stat. */
const TICK_MS = 10;

/** User and system time of a process in milliseconds (proc_pid_stat(5), fields 14 and 15). */
export function cpuMsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

/** How the host's memory is, and what a process has of it, from /proc; what a kernel or a container does not tell is null. */
import { readdir, readFile } from 'node:fs/promises';
import type { DaemonStatus, HostPressure, HostStatus } from './contract.ts';

/** @param proc where procfs is, for tests */
export async function readHost(proc = '/proc'): Promise<HostStatus> {
  const [meminfo, pressure] = await Promise.all([
    readText(`${proc}/meminfo`),
    readText(`${proc}/pressure/memory`),
  ]);
  return {
    totalBytes: meminfoBytes(meminfo, 'MemTotal'),
    availableBytes: meminfoBytes(meminfo, 'MemAvailable'),
    sharedBytes: meminfoBytes(meminfo, 'Shmem'),
    swapTotalBytes: meminfoBytes(meminfo, 'SwapTotal'),
    swapFreeBytes: meminfoBytes(meminfo, 'SwapFree'),
    pressure: parsePressure(pressure),
  };
}

/** Of this process. @param proc where procfs is, for tests */
export async function readDescriptors(proc = '/proc'): Promise<DaemonStatus['descriptors']> {
  const [open, limits] = await Promise.all([
    readdir(`${proc}/self/fd`).catch(() => undefined),
    readText(`${proc}/self/limits`),
  ]);
  const max = /^Max open files +(\d+) /m.exec(limits)?.[1];
  return open === undefined || max === undefined ? null : { open: open.length, max: Number(max) };
}

const readText = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');

function meminfoBytes(text: string, field: string): number | null {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text);
  return match === null ? null : Number(match[1]) * 1024;
}

/** Two lines, `some` and `full`, as in the kernel's Documentation/accounting/psi.rst. */
function parsePressure(text: string): HostPressure | null {
  const percentages = (line: string) =>
    new RegExp(`^${line} avg10=([\\d.]+) avg60=([\\d.]+) avg300=([\\d.]+) total=`, 'm').exec(text);
  const some = percentages('some');
  const full = percentages('full');
  if (some === null || full === null) return null;
  return {
    some10Percent: Number(some[1]),
    some60Percent: Number(some[2]),
    full10Percent: Number(full[1]),
    full60Percent: Number(full[2]),
  };
}

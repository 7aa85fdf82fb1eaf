/** A bar on the terminal that follows a balloon; silent where nobody looks. */
import type { GuestStatus } from '../daemon/control.ts';
import type { CliContext } from './context.ts';
import { formatSize } from './size.ts';

export interface TargetBar {
  readonly update: (guest: GuestStatus) => void;
  readonly stop: () => void;
}

const SILENT: TargetBar = { update: () => {}, stop: () => {} };

/** It is drawn on standard error, so that it never mixes with an answer. */
export async function progressBar(
  context: CliContext,
  name: string,
  targetBytes: number,
): Promise<TargetBar> {
  const { stderr } = context;
  if (!stderr.isTTY) return SILENT;
  const { Presets, SingleBar } = (await import('cli-progress')).default;
  const bar = new SingleBar(
    {
      stream: stderr,
      format: `${name} {bar} {held} of ${formatSize(targetBytes)}, {pending} pending`,
      hideCursor: true,
      clearOnComplete: true,
      // Signals are the program's to take; this one would end the process.
      gracefulExit: false,
    },
    Presets.shades_classic,
  );
  // The way to go is from where the balloon was to the target, and may lead downwards.
  let from: number | undefined;
  return {
    update: guest => {
      const held = guest.actualBytes ?? 0;
      const fields = { held: formatSize(held), pending: formatSize(guest.pendingBytes) };
      if (from === undefined) {
        from = held;
        bar.start(Math.max(1, Math.abs(targetBytes - from)), 0, fields);
      } else {
        bar.update(Math.abs(held - from), fields);
      }
    },
    stop: () => bar.stop(),
  };
}

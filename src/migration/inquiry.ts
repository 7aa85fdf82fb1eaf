/** How a source asks, over a connection of its own, whether the guest that it let go runs at the destination. */
import type { ByteChannel } from './byte-channel.ts';
import { writeHello } from './stream/messages.ts';
import { SectionReader } from './stream/section-reader.ts';
import { SectionWriter } from './stream/section-writer.ts';

/** `absent`: the destination says that it does not run it and never will. `unheard`: it said nothing. */
type InquiryAnswer = 'running' | 'absent' | 'unheard';

/** Resolves with the answer, or with `unheard` when the connection ends without one. */
export async function askWhetherRunning(channel: ByteChannel, id: Uint8Array): Promise<InquiryAnswer> {
  const answer = new Promise<InquiryAnswer>(resolve => {
    const reader = new SectionReader(name => {
      if (name === 'running') resolve('running');
      else resolve(name === 'refused' ? 'absent' : 'unheard');
    });
    channel.listen({
      data(bytes) {
        try {
          reader.push(bytes);
        } catch {
          resolve('unheard');
        }
      },
      closed: () => resolve('unheard'),
    });
  });
  const hello = { id, purpose: 'inquire', connection: 0, connections: 1, features: 0 } as const;
  try {
    await channel.write(writeHello(new SectionWriter(), hello));
    return await answer;
  } catch {
    return 'unheard';
  } finally {
    channel.close();
  }
}

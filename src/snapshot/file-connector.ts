/**
 * How a migration's source writes into a file: one connection, whose answers the file's state gives. `go` means that the
 * guest runs on here, so the file is brought under its name then, while the guest waits for nothing.
 */

import type { Clock } from '../migration/machine.ts';
import { PageSender } from '../migration/page-sender.ts';
import type { Ram } from '../migration/ram.ts';
import type { SlotBitmap } from '../migration/slot-bitmap.ts';
import {
  type DestinationAnswer,
  type Link,
  type LinkProgress,
  SourceLink,
  type SourceMessage,
} from '../migration/source-link.ts';
import type { Connector, Inquiry } from '../migration/source-links.ts';
import { TokenBucket } from '../migration/token-bucket.ts';
import type { SnapshotFile } from './snapshot-file.ts';

interface FileConnectorOptions {
  readonly file: SnapshotFile;
  readonly ram: Ram;
  readonly dirty: SlotBitmap;
  readonly sent: SlotBitmap;
  readonly clock: Clock;
  /** No limit when left out. */
  readonly bytesPerSecond?: number;
}

export class FileConnector implements Connector {
  readonly #options: FileConnectorOptions;

  constructor(options: FileConnectorOptions) {
    this.#options = options;
  }

  async open(): Promise<Link> {
    const { file, ram, dirty, sent, clock, bytesPerSecond = Number.POSITIVE_INFINITY } = this.#options;
    const sender = new PageSender({ ram, dirty, sent, share: { index: 0, of: 1 } });
    const bucket = new TokenBucket(bytesPerSecond);
    return new FileLink(file, new SourceLink({ channel: file, sender, bucket, clock }));
  }

  /** The source waits no longer for `running`: a slow disk may take its time, for the guest runs. */
  async inquire(): Promise<Inquiry> {
    return this.#options.file.finish().then(
      () => 'running',
      () => 'absent',
    );
  }
}

class FileLink implements Link {
  readonly broken: Promise<never>;
  readonly #file: SnapshotFile;
  readonly #link: SourceLink;
  #offered = 0;
  #last: SourceMessage['kind'] = 'hello';

  constructor(file: SnapshotFile, link: SourceLink) {
    this.#file = file;
    this.#link = link;
    this.broken = link.broken;
  }

  async send(message: SourceMessage): Promise<void> {
    this.#last = message.kind;
    if (message.kind === 'hello') this.#offered = message.features;
    // What is in the file ends with `end`: what becomes of the guest here is not part of it.
    if (message.kind !== 'go' && message.kind !== 'cancel') await this.#link.send(message);
  }

  async answer(): Promise<DestinationAnswer> {
    if (this.#last === 'memory') return { kind: 'welcome', features: this.#offered };
    if (this.#last === 'end') return { kind: 'ready' };
    await this.#file.finish();
    return { kind: 'running' };
  }

  sendPages(...sections: Parameters<Link['sendPages']>): Promise<void> {
    return this.#link.sendPages(...sections);
  }

  /** No guest waits for pages of a file: it has all. */
  listen(...listener: Parameters<Link['listen']>): void {
    this.#link.listen(...listener);
  }

  interrupt(): void {
    this.#link.interrupt();
  }

  progress(): LinkProgress {
    return this.#link.progress();
  }

  get waitingSinceMs(): number | undefined {
    return this.#link.waitingSinceMs;
  }

  useFeatures(features: number): void {
    this.#link.useFeatures(features);
  }

  close(graceful: boolean): void {
    this.#link.close(graceful);
  }
}

/** The connections of one migration at its destination, by their number. What is said over them is not here. */
import type { Inlet } from './destination-link.ts';
import type { Hello } from './stream/messages.ts';
import { StreamError } from './stream/section.ts';

export interface MigrationConnection {
  readonly inlet: Inlet;
  hello: Hello | undefined;
  ended: boolean;
  /** A stop was called off over it. */
  recalled: boolean;
}

export class DestinationConnections {
  readonly #byNumber: (MigrationConnection | undefined)[] = [];

  /** How many there are to be; 0 before the first. */
  get count(): number {
    return this.#byNumber[0]?.hello?.connections ?? 0;
  }

  get first(): Inlet | undefined {
    return this.#byNumber[0]?.inlet;
  }

  get all(): readonly MigrationConnection[] {
    return this.#byNumber.flatMap(connection => connection ?? []);
  }

  has(connection: MigrationConnection): boolean {
    const { hello } = connection;
    return hello !== undefined && this.#byNumber[hello.connection] === connection;
  }

  get allEnded(): boolean {
    for (let index = 0; index < this.count; index++) if (!this.#byNumber[index]?.ended) return false;
    return true;
  }

  /** A stop was called off over one. Returns whether that is all of them now, which begin anew then. */
  recall(connection: MigrationConnection): boolean {
    connection.ended = false;
    connection.recalled = true;
    const { all } = this;
    if (all.length < this.count || all.some(({ recalled }) => !recalled)) return false;
    for (const each of all) each.recalled = false;
    return true;
  }

  /** @throws StreamError when it is no part of what the first began, or there already */
  add(connection: MigrationConnection, hello: Hello): void {
    const first = this.#byNumber[0]?.hello;
    const fits = hello.connection === 0 || first?.connections === hello.connections;
    if (!fits || this.#byNumber[hello.connection] !== undefined) {
      throw new StreamError(
        'order',
        `connection ${hello.connection} of ${hello.connections} of another migration`,
      );
    }
    connection.hello = hello;
    this.#byNumber[hello.connection] = connection;
  }

  /** Some are lost, and the others of no use without them. */
  drop(): void {
    for (const former of this.#byNumber.splice(0)) former?.inlet.close(false);
  }
}

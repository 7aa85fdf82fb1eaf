/** A QEMU monitor that says what a test wants it to say. */
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface FakeRequest {
  readonly command: string;
  readonly arguments: Record<string, unknown>;
  readonly id: number;
}

type Respond = (request: FakeRequest, monitor: FakeMonitor) => void;

const GREETING = {
  QMP: { version: { qemu: { major: 9, minor: 1, micro: 2 }, package: 'fake' }, capabilities: ['oob'] },
};

export interface FakeMonitorOptions {
  /** Where it listens; in a directory of its own unless given. */
  readonly path?: string;
  /** The first line; null for none at all. */
  readonly greeting?: string | null;
  /** Bytes in each piece that is sent. Default: all at once. */
  readonly pieceBytes?: number;
  /** Default: answers every command with an empty object. */
  readonly respond?: Respond;
}

export class FakeMonitor {
  readonly path: string;
  readonly requests: FakeRequest[] = [];
  readonly #directory: string;
  readonly #server: Server;
  readonly #options: FakeMonitorOptions;
  readonly #sockets = new Set<Socket>();
  readonly #askers = new WeakMap<FakeRequest, Socket>();
  respond: Respond;

  private constructor(options: FakeMonitorOptions) {
    this.#directory = mkdtempSync(join(tmpdir(), 'aerostat-fake-qmp-'));
    this.path = options.path ?? join(this.#directory, 'qmp');
    this.#options = options;
    this.respond = options.respond ?? ((request, monitor) => monitor.answer(request, {}));
    this.#server = createServer(socket => this.#serve(socket));
  }

  static async start(options: FakeMonitorOptions = {}): Promise<FakeMonitor> {
    const monitor = new FakeMonitor(options);
    await new Promise<void>(resolve => monitor.#server.listen(monitor.path, resolve));
    return monitor;
  }

  /** Commands that were received after the negotiation. */
  get commands(): readonly string[] {
    return this.requests.map(({ command }) => command).filter(command => command !== 'qmp_capabilities');
  }

  /** Only who asked is answered: clients number their commands alike. */
  answer(request: FakeRequest, value: unknown): void {
    this.send({ return: value, id: request.id }, this.#askerOf(request));
  }

  refuse(request: FakeRequest, errorClass: string, desc: string): void {
    this.send({ error: { class: errorClass, desc }, id: request.id }, this.#askerOf(request));
  }

  event(name: string, data: Record<string, unknown> = {}): void {
    this.send({ event: name, data, timestamp: { seconds: 1700000000, microseconds: 250000 } });
  }

  /** To all clients unless said otherwise. */
  send(message: unknown, to?: Iterable<Socket>): void {
    this.sendText(`${JSON.stringify(message)}\r\n`, to);
  }

  sendText(text: string, to: Iterable<Socket> = this.#sockets): void {
    const bytes = Buffer.from(text);
    const piece = this.#options.pieceBytes ?? bytes.length;
    for (const socket of to) {
      for (let at = 0; at < bytes.length; at += piece) socket.write(bytes.subarray(at, at + piece));
    }
  }

  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close(): Promise<void> {
    this.dropConnections();
    await new Promise(resolve => this.#server.close(resolve));
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #serve(socket: Socket): void {
    socket.setNoDelay(true);
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => this.#sockets.delete(socket));
    let rest = '';
    socket.on('data', chunk => {
      const lines = (rest + chunk.toString('utf8')).split('\n');
      rest = lines.pop()!;
      for (const line of lines) this.#receive(line, socket);
    });
    const { greeting } = this.#options;
    if (greeting === undefined) this.send(GREETING, [socket]);
    else if (greeting !== null) this.sendText(greeting, [socket]);
  }

  #askerOf(request: FakeRequest): readonly Socket[] {
    const socket = this.#askers.get(request);
    return socket === undefined ? [] : [socket];
  }

  #receive(line: string, socket: Socket): void {
    const json = JSON.parse(line);
    const request: FakeRequest = { command: json.execute, arguments: json.arguments, id: json.id };
    this.requests.push(request);
    this.#askers.set(request, socket);
    if (request.command === 'qmp_capabilities') this.answer(request, {});
    else this.respond(request, this);
  }
}

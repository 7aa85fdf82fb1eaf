/** A real API server on TCP over a {@link FakeControl}, and requests to it that may say anything. */
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { parseAddress } from '../../src/server/address.ts';
import { type ApiServer, type ServeOptions, serveApi } from '../../src/server/listen.ts';
import { fullToken } from '../../src/server/token.ts';
import { FakeControl, guestStatus } from './fake-control.ts';
import { policyStatus } from './fake-policy.ts';

const TOKEN = '0123456789abcdef0123456789abcdef';

export interface Asked {
  readonly method: string;
  readonly path: string;
  /** Sent as it is if it is text, else as JSON. */
  readonly body?: unknown;
  /** Beside the token and the type of the body; undefined leaves one of those out. */
  readonly headers?: Readonly<Record<string, string | undefined>>;
  /** Whether what came so far will do, where an answer does not end. */
  readonly enough?: (text: string) => boolean;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

export class Served {
  readonly control: FakeControl;
  readonly #server: ApiServer;
  readonly port: number;

  private constructor(control: FakeControl, server: ApiServer, port: number) {
    this.control = control;
    this.#server = server;
    this.port = port;
  }

  static async open(options: Partial<ServeOptions> = {}): Promise<Served> {
    const control = new FakeControl(guestStatus('vm1'), guestStatus('vm2'));
    control.memoryPolicy.status = policyStatus(['vm1', 'vm2']);
    const server = await serveApi(control, {
      version: '0.1.0',
      address: parseAddress('127.0.0.1:0'),
      tokens: fullToken(TOKEN),
      ...options,
    });
    return new Served(control, server, (server.address as { port: number }).port);
  }

  ask({ method, path, body, headers = {}, enough }: Asked): Promise<Answer> {
    const payload = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
    const said = {
      Authorization: `Bearer ${TOKEN}`,
      'Content-Type': payload === undefined ? undefined : 'application/json',
      // Node leaves it out where bodies are unusual.
      'Content-Length': payload === undefined ? undefined : String(Buffer.byteLength(payload)),
      ...headers,
    };
    const meant = Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined));
    return new Promise((resolve, reject) => {
      const request = httpRequest(
        {
          host: '127.0.0.1',
          port: this.port,
          // Who was answered before all was said is cut off, and must not be asked anything else over that connection.
          agent: false,
          method,
          path,
          headers: meant as Record<string, string>,
        },
        response => {
          let text = '';
          const { statusCode: status = 0, headers } = response;
          const finish = () => resolve({ status, headers, text });
          response.setEncoding('utf8').on('data', (piece: string) => {
            text += piece;
            if (enough?.(text) !== true) return;
            finish();
            request.destroy();
          });
          response.once('end', finish);
        },
      );
      request.once('error', reject).end(payload);
    });
  }

  /** A stream that stays open until the server is closed; resolves when its first piece is there. */
  holdOpen(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const headers = { Authorization: `Bearer ${TOKEN}` };
      const request = httpRequest({ host: '127.0.0.1', port: this.port, path, headers }, response => {
        if (response.statusCode !== 200) reject(new Error(`${path} answers with ${response.statusCode}`));
        response.once('data', () => resolve()).once('error', () => {});
        response.resume();
      });
      request.once('error', reject).end();
    });
  }

  close(): Promise<void> {
    return this.#server.close();
  }
}

/** A socket at which a program serves devices: each front-end that connects has one of its own. */

import { defined } from '../sys/defined.ts';
import type { Reactor } from '../sys/poll.ts';
import { UnixListener } from '../sys/socket.ts';
import type { VirtioDevice } from '../virtio/device.ts';
import { BackendConnection } from './backend-connection.ts';

export interface DeviceServerOptions {
  readonly reactor: Reactor;
  /** The device of a front-end that has just connected. */
  readonly device: () => VirtioDevice;
  /** What a front-end said that cannot be done; it is printed nowhere else. */
  readonly refused?: (error: Error) => void;
}

/** Front-ends that wait to be let in at once; one turn of the loop takes no more. */
const ACCEPTED_A_TURN = 8;

/** Binds `path`, which must not exist, and serves in the reactor's turns; returns what ends that. */
export function serveDevice(path: string, { reactor, device, refused }: DeviceServerOptions): () => void {
  const listener = UnixListener.bind(path);
  const connections = new Set<BackendConnection>();
  const watch = reactor.watch(listener.fd, () => {
    for (let count = 0; count < ACCEPTED_A_TURN; count++) {
      const socket = listener.accept();
      if (socket === undefined) return;
      const connection: BackendConnection = new BackendConnection(socket, device(), {
        reactor,
        ...defined({ refused }),
        ended: () => connections.delete(connection),
      });
      connections.add(connection);
    }
  });
  return () => {
    watch.stop();
    listener.close();
    for (const connection of connections) connection.close();
  };
}

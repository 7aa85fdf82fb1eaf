/**
 * What can go wrong with a QEMU: with its monitor, with the device that we program in it, and with the
 * process.
 */
import { AerostatError } from '../../sys/error.ts';

/** QEMU answered a command with an error. */
export class QmpError extends AerostatError {
  readonly command: string;
  /** QEMU's class, for example `CommandNotFound`, `DeviceNotActive` or `GenericError`. */
  readonly errorClass: string;
  /** QEMU's words, for people. */
  readonly description: string;

  constructor(command: string, errorClass: string, description: string) {
    super('AEROSTAT_QMP', `QEMU refused ${command}: ${description} (${errorClass})`);
    this.command = command;
    this.errorClass = errorClass;
    this.description = description;
  }
}

/**
 * The monitor cannot be reached, went away, or does not speak QMP. Whatever was asked may or may not have
 * happened.
 */
export class QmpConnectionError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_QMP_CONNECTION', message, options);
  }
}

/** QEMU did not answer a command in time; it may still carry it out. */
export class QmpTimeoutError extends AerostatError {
  readonly command: string;

  constructor(command: string, timeoutMs: number) {
    super(
      'AEROSTAT_QMP_TIMEOUT',
      `QEMU did not answer ${command} within ${timeoutMs} ms; is it stopped or overloaded?`,
    );
    this.command = command;
  }
}

/** QEMU's answer does not have the shape that its own schema promises. */
export class QmpAnswerError extends AerostatError {
  constructor(command: string, fault: string) {
    super('AEROSTAT_QMP_ANSWER', `QEMU's answer to ${command} cannot be used: ${fault}`);
  }
}

/** The qtest connection failed, or QEMU refused a qtest command. */
export class QtestError extends AerostatError {
  constructor(message: string, options?: ErrorOptions) {
    super('AEROSTAT_QTEST', message, options);
  }
}

/** A PCI function is missing, or is not the virtio device that it should be. */
export class PciError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_PCI', message);
  }
}

/**
 * QEMU did not start, or ended while something was wanted of it. The message holds the end of its standard
 * error.
 */
export class QemuProcessError extends AerostatError {
  readonly stderrTail: string;

  constructor(message: string, stderrTail: string) {
    const tail = stderrTail.trim();
    super(
      'AEROSTAT_QEMU_PROCESS',
      tail === '' ? message : `${message}\nThe end of its standard error:\n${tail}`,
    );
    this.stderrTail = tail;
  }
}

/** A live migration between QEMUs ended in failure. */
export class QemuMigrationError extends AerostatError {
  constructor(message: string) {
    super('AEROSTAT_QEMU_MIGRATION', message);
  }
}

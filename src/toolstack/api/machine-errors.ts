/** Errors of the machine and of what Domain 0 does, in the words of the toolstack's interface. */
import { DiskError } from '../../dom0/block/source.ts';
import { BuildError } from '../../dom0/builder/error.ts';
import { OutOfFrames } from '../../machine/frames.ts';
import { PcpuError } from '../../machine/pcpu.ts';
import { ERRNO } from '../../xen/public/errno.ts';
import { ShareError } from '../devices/share-spec.ts';
import { Failure } from '../failure.ts';
import { ImageError } from '../images/index.ts';
import { ForwardSpecError } from '../net/forward-spec.ts';
import { NetError } from '../net/net-service.ts';
import { VifSpecError } from '../net/vif-spec.ts';
import { ToolstackError } from './errors.ts';

/** Errors that say what is wrong with what was asked for. */
const WRONG = [
  ...[Failure, ImageError, BuildError, DiskError, ShareError, NetError],
  ...[VifSpecError, ForwardSpecError],
];

/** Does something on the machine; its errors become the interface's. */
export async function asked<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw translated(error);
  }
}

/** Errors of the machine, in the words of the interface. */
function translated(error: unknown): unknown {
  if (error instanceof OutOfFrames)
    return new ToolstackError('no-memory', 'the machine has not enough free memory');
  if (error instanceof Error && WRONG.some((kind) => error instanceof kind))
    return new ToolstackError('invalid', error.message);
  if (!(error instanceof PcpuError)) return error;
  switch (error.errno) {
    case ERRNO.ESRCH:
      return new ToolstackError('not-found', error.message);
    case ERRNO.ENOMEM:
      return new ToolstackError('no-memory', error.message || 'the machine has not enough free memory');
    case ERRNO.EBUSY:
      return new ToolstackError('busy', error.message);
    case ERRNO.EINVAL:
    case ERRNO.ENOENT:
      return new ToolstackError('invalid', error.message);
    default:
      return error.name === 'OutOfFrames'
        ? new ToolstackError('no-memory', 'the machine has not enough free memory')
        : new ToolstackError('failed', error.message);
  }
}

import * as parser from 'socket.io-parser';
import { MESSAGE_BOUNDS } from '../protocol/dialects.ts';
import { checkJsonBounds } from '../protocol/json-bounds.ts';

/** Name of the event that replaces one beyond the bounds. A symbol, so that no packet can contain it. */
export const BEYOND_BOUNDS = Symbol('beyond the bounds');

/** An event of the namespace `/`, with the id of its acknowledgement. */
const EVENT = /^2(\d{0,15})\[/;

/**
 * Checks the JSON bounds of a packet before it is parsed. Replaces an event beyond the bounds by `BEYOND_BOUNDS`, so
 * that the client receives an error. Any other packet beyond the bounds closes the engine, as invalid JSON does.
 */
class BoundedDecoder extends parser.Decoder {
  override add(packet: unknown): void {
    if (typeof packet !== 'string') return super.add(packet);
    try {
      checkJsonBounds(packet, MESSAGE_BOUNDS);
    } catch (error) {
      const [, id] = EVENT.exec(packet) ?? [];
      if (id === undefined) throw error;
      const replaced = { type: parser.PacketType.EVENT, nsp: '/', data: [BEYOND_BOUNDS] };
      this.emitReserved('decoded', id === '' ? replaced : { ...replaced, id: Number(id) });
      return;
    }
    super.add(packet);
  }
}

/** Value of the `parser` option of the Socket.IO server. */
export const boundedParser = { ...parser, Decoder: BoundedDecoder };

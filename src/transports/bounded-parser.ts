import * as parser from 'socket.io-parser';
import { MESSAGE_BOUNDS } from '../protocol/dialects.ts';
import { checkJsonBounds } from '../protocol/json-bounds.ts';

/** The name of an event that stands for one beyond the bounds; no packet can hold it. */
export const BEYOND_BOUNDS = Symbol('beyond the bounds');

/** An event of the one namespace, and the id of its acknowledgement. */
const EVENT = /^2(\d{0,15})\[/;

/**
 * Bounds the values of a packet before its JSON is parsed. An event beyond the bounds is replaced by `BEYOND_BOUNDS`, so that
 * it is answered; any other packet ends the engine, as one does that is no JSON.
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

/** For the `parser` option of Socket.IO's server. */
export const boundedParser = { ...parser, Decoder: BoundedDecoder };

/** CRC-16/XMODEM, computed per bit: it is called for a few dozen names only, so a table is not worthwhile. */
function crc16(text: string): number {
  let crc = 0;
  for (const byte of Buffer.from(text)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : crc << 1;
  }
  return crc;
}

/**
 * Returns the Redis Cluster slot of a key or a sharded channel. If the name contains a non-empty hash tag, only the
 * first one is hashed.
 */
export function slotOf(key: string): number {
  const open = key.indexOf('{');
  const close = key.indexOf('}', open + 1);
  const hashed = open >= 0 && close > open + 1 ? key.slice(open + 1, close) : key;
  return crc16(hashed) % 16_384;
}

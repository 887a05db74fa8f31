/** Connections per user, except in plans with their own cap. A minted user has four clients and two streams. */
export const CAP = 8;
/** Messages per minute, times the multiplier of the plan. */
export const MESSAGE_RATE = 1_000_000;
